"""Cascade Mask R-CNN with FlashInternImage-L; its FPN has a channel LayerNorm after each conv."""
_base_ = './cascade-mask-rcnn_4conv1fc.py'
model = dict(
    backbone=dict(_delete_=True, type='FlashInternImage', arch='large', drop_path_rate=0.4),
    neck=dict(in_channels=[160, 320, 640, 1280],
              norm_cfg=dict(type='mmpretrain.LN2d', eps=1e-6)))
