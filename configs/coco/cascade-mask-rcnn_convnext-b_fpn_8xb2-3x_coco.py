"""Cascade Mask R-CNN, ConvNeXt-B, 3x.

Published: box AP 52.7, mask AP 45.6 (ConvNeXt repository, detection table).
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext_fpn.py', '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det.py'
]
weights = ('https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
           'convnext-base_3rdparty_32xb128-noema_in1k_20220301-2a0ee547.pth')
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.7,
                  init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')),
    neck=dict(in_channels=[128, 256, 512, 1024]))
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(layer_decay_rate=0.8))
