"""Mask R-CNN with ConvNeXt-T (mmpretrain's class) and an ordinary FPN."""
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
model = dict(
    backbone=dict(_delete_=True, type='mmpretrain.ConvNeXt', arch='tiny', drop_path_rate=0.4,
                  out_indices=[0, 1, 2, 3], layer_scale_init_value=1.0,
                  gap_before_final_norm=False),
    neck=dict(in_channels=[96, 192, 384, 768]))
