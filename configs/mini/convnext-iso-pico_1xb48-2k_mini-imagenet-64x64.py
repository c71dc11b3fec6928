"""Classifier, isotropic ConvNeXt-pico with patches of 8 pixels, 2,000 iterations.

Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = './convnext-mini_1xb48-2k_mini-imagenet-64x64.py'
model = dict(
    backbone=dict(type='IsotropicConvNeXt', arch='pico', stem_patch_size=8,
                  layer_scale_init_value=0.0),
    head=dict(in_channels=64))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
