"""Cascade Mask R-CNN, ConvNeXt-L from ImageNet-22K, 3x.

Published: box AP 54.8, mask AP 47.6 (ConvNeXt repository, detection table).
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext_fpn.py', '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det.py'
]
weights = ('https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
           'convnext-large_3rdparty_in21k_20220301-e6e0ea0a.pth')
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.7,
                  init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')),
    neck=dict(in_channels=[192, 384, 768, 1536]))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.7))
