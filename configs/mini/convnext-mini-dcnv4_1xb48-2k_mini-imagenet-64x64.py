"""Classifier, the small ConvNeXt with DCNv4 for its 7x7 convolutions, 2,000 iterations.

Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = './convnext-mini_1xb48-2k_mini-imagenet-64x64.py'
model = dict(backbone=dict(type='DeformableConvNeXt', mask_init=1 / 9))
