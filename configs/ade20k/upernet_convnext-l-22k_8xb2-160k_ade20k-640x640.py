"""UperNet, ConvNeXt-L pre-trained on ImageNet-22K, 160k iterations.

Published: mIoU 53.2 single scale, 53.7 multi-scale (ConvNeXt repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_convnext.py', '../_base_/datasets/ade20k_640.py',
    '../_base_/schedules/seg_convnext_160k.py', '../_base_/runtime/seg.py'
]
weights = ('https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
           'convnext-large_3rdparty_in21k_20220301-e6e0ea0a.pth')
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(arch='large',
                  init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)))
