"""Mask R-CNN with InternImage-T (DCNv3) and an ordinary FPN."""
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
model = dict(
    backbone=dict(_delete_=True, type='InternImage', arch='tiny', drop_path_rate=0.2),
    neck=dict(in_channels=[64, 128, 256, 512]))
