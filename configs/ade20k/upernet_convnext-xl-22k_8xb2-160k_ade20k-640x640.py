"""UperNet, ConvNeXt-XL pre-trained on ImageNet-22K, 160k iterations.

Published: mIoU 53.6 single scale, 54.0 multi-scale (ConvNeXt repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_convnext.py', '../_base_/datasets/ade20k_640.py',
    '../_base_/schedules/seg_convnext_160k.py', '../_base_/runtime/seg.py'
]
weights = ('https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
           'convnext-xlarge_3rdparty_in21k_20220301-08aa5ddc.pth')
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(arch='xlarge',
                  init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)))
optim_wrapper = dict(optimizer=dict(lr=8e-5))
