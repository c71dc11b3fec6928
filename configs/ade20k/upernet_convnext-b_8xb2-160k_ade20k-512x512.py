"""UperNet, ConvNeXt-B, 160k iterations.

Published: mIoU 49.1 single scale, 49.9 multi-scale (ConvNeXt repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_convnext.py', '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/seg_convnext_160k.py', '../_base_/runtime/seg.py'
]
weights = ('https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
           'convnext-base_3rdparty_32xb128-noema_in1k_20220301-2a0ee547.pth')
model = dict(
    backbone=dict(arch='base',
                  init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512))
optim_wrapper = dict(type='AmpOptimWrapper')
