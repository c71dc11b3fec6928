"""UperNet, ConvNeXt-T, 160k iterations.

Published: mIoU 46.0 single scale, 46.7 multi-scale (ConvNeXt repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_convnext.py', '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/seg_convnext_160k.py', '../_base_/runtime/seg.py'
]
weights = ('https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
           'convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth')
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')))
optim_wrapper = dict(type='AmpOptimWrapper')
