"""Cascade Mask R-CNN, ConvNeXt-T, 3x.

Published: box AP 50.4, mask AP 43.7 (ConvNeXt repository, detection table).
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext_fpn.py', '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det.py'
]
weights = ('https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
           'convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth')
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')))
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(layer_decay_rate=0.7))
