"""Classifier, InternImage-pico (DCNv3), 2,000 iterations on the mini ImageNet set.

Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = './flash-internimage-pico_1xb48-2k_mini-imagenet-64x64.py'
model = dict(backbone=dict(type='InternImage'))
