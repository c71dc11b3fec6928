"""Mask R-CNN with FlashInternImage-T (DCNv4); its FPN has a channel LayerNorm after each conv."""
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
model = dict(
    backbone=dict(_delete_=True, type='FlashInternImage', arch='tiny', drop_path_rate=0.2),
    neck=dict(in_channels=[64, 128, 256, 512],
              norm_cfg=dict(type='mmpretrain.LN2d', eps=1e-6)))
