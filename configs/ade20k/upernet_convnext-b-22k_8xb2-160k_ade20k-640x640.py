"""UperNet, ConvNeXt-B pre-trained on ImageNet-22K, 160k iterations.

Published: mIoU 52.6 single scale, 53.1 multi-scale (ConvNeXt repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_convnext.py', '../_base_/datasets/ade20k_640.py',
    '../_base_/schedules/seg_convnext_160k.py', '../_base_/runtime/seg.py'
]
weights = ('https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
           'convnext-base_3rdparty_in21k_20220301-262fd037.pth')
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(arch='base',
                  init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)))
optim_wrapper = dict(type='AmpOptimWrapper')
