"""Cascade Mask R-CNN, ConvNeXt-XL from ImageNet-22K, 3x.

Published: box AP 55.2, mask AP 47.7 (ConvNeXt repository, detection table).
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext_fpn.py', '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det.py'
]
weights = ('https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
           'convnext-xlarge_3rdparty_in21k_20220301-08aa5ddc.pth')
model = dict(
    backbone=dict(arch='xlarge', drop_path_rate=0.8,
                  init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.7))
