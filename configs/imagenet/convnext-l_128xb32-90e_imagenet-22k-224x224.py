"""Classifier, ConvNeXt-L, pre-training on ImageNet-22K for 90 epochs.

Published: convnext_large_22k_224.pth (arXiv:2201.03545), without a figure.
"""
_base_ = [
    'mmpretrain::_base_/models/convnext/convnext-large.py',
    '../_base_/datasets/imagenet22k_224.py',
    '../_base_/schedules/cls_convnext_90e.py', '../_base_/runtime/cls.py'
]
model = dict(backbone=dict(drop_path_rate=0.1), head=dict(num_classes=21841))
train_dataloader = dict(batch_size=32)
