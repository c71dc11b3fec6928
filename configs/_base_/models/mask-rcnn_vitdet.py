"""Mask R-CNN with ViTDet-B: plain ViT, pyramid of its last map alone (arXiv:2203.16527).

Channel norm after every convolution of pyramid, box head and mask head, as in detectron2;
decomposed relative positions in every block; images are padded to 1024x1024 always.
"""
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
norm_cfg = dict(type='mmpretrain.LN2d', eps=1e-6)
model = dict(
    data_preprocessor=dict(type='FixedSizeDetDataPreprocessor', pad_size=(1024, 1024)),
    backbone=dict(_delete_=True, type='PlainViT', arch='base', out_type='last',
                  rel_pos='decomposed', drop_path_rate=0.1),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=768),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg)),
    train_cfg=dict(rpn_proposal=dict(max_per_img=1000)))
