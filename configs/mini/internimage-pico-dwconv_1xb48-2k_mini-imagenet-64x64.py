"""Classifier, InternImage-pico with depthwise convolution for DCNv3; 2,000 iterations.

What ``make claims`` compares operators with; ``model.backbone.operator`` names another one.
"""
_base_ = './internimage-pico_1xb48-2k_mini-imagenet-64x64.py'
custom_imports = dict(
    imports=['mmcls_custom', 'mmcls_custom.backbones.ablations', 'mmcls_custom.datasets'],
    allow_failed_imports=False)
model = dict(backbone=dict(type='InternImageWithOperator', operator='DepthwiseConv'))
