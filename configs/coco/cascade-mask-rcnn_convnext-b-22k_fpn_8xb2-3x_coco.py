"""Cascade Mask R-CNN, ConvNeXt-B from ImageNet-22K, 3x.

Published: box AP 54.0, mask AP 46.9 (ConvNeXt repository, detection table).
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext_fpn.py', '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det.py'
]
weights = ('https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
           'convnext-base_3rdparty_in21k_20220301-262fd037.pth')
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.6,
                  init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')),
    neck=dict(in_channels=[128, 256, 512, 1024]))
optim_wrapper = dict(type='AmpOptimWrapper', paramwise_cfg=dict(layer_decay_rate=0.8))
