"""Mask R-CNN with a plain ViT-B and an FPN (arXiv:2111.11429).

SyncBN after every convolution of FPN, box head and mask head, two convolutions in the RPN, four
convolutions and one linear layer in the box head; images are padded to 1024x1024 always.

Choices of the paper, all in ``backbone``: memory by ``global_blocks`` (``[]``: windows only, None:
four global blocks, ``list(range(depth))``: all) and ``with_cp``; absolute positions by ``abs_pos``,
relative ones by ``rel_pos`` (``'shared_table'`` starts from zero where the weights have no table),
and ``init_cfg=dict(skip=['pos_embed'])`` or ``['rel_pos']`` to start them afresh.
"""
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
# torch's own SyncBN copes with ranks without regions and weights ranks by their counts.
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    data_preprocessor=dict(type='FixedSizeDetDataPreprocessor', pad_size=(1024, 1024)),
    backbone=dict(_delete_=True, type='PlainViT', arch='base', drop_path_rate=0.1),
    neck=dict(in_channels=[768, 768, 768, 768], norm_cfg=norm_cfg),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg)))
