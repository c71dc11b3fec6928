"""UperNet, ConvNeXt-S, 160k iterations.

Published: mIoU 48.7 single scale, 49.6 multi-scale (ConvNeXt repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_convnext.py', '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/seg_convnext_160k.py', '../_base_/runtime/seg.py'
]
weights = ('https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
           'convnext-small_3rdparty_32xb128-noema_in1k_20220301-303e75e3.pth')
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.3,
                  init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')))
optim_wrapper = dict(type='AmpOptimWrapper')
