"""Classifier, the small ConvNeXt with DCNv4 for its 7x7 convolutions, 2,000 iterations.

With groups of 16 channels whose offsets come from single pixels, as in the large models, so small a
network has few spatial filters (top-1 75 %); here groups of 8, and offsets from 3x3 pixels.
Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = './convnext-mini_1xb48-2k_mini-imagenet-64x64.py'
model = dict(backbone=dict(
    type='DeformableConvNeXt', group_channels=8, dw_kernel_size=3, mask_init=1 / 9))
