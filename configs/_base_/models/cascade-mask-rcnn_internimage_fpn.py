"""Cascade Mask R-CNN with InternImage-L (DCNv3) and an ordinary FPN."""
_base_ = './cascade-mask-rcnn_4conv1fc.py'
model = dict(
    backbone=dict(_delete_=True, type='InternImage', arch='large', drop_path_rate=0.4),
    neck=dict(in_channels=[160, 320, 640, 1280]))
