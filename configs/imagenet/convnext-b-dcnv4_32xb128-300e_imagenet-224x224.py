"""Classifier, ConvNeXt-B with DCNv4 for the 7x7 depthwise convolutions, 300 epochs.

Published: top-1 84.0 (arXiv:2401.06197, table 8); groups and projections are not published.
"""
_base_ = './convnext-b_32xb128-300e_imagenet-224x224.py'
model = dict(backbone=dict(type='DeformableConvNeXt'))
