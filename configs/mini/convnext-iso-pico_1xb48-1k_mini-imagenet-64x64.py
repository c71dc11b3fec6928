"""Classifier, isotropic ConvNeXt-pico with patches of 4 pixels, 1,000 iterations.

Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = './convnext-mini_1xb48-1k_mini-imagenet-64x64.py'
model = dict(
    backbone=dict(type='IsotropicConvNeXt', arch='pico', stem_patch_size=4),
    head=dict(in_channels=48))
