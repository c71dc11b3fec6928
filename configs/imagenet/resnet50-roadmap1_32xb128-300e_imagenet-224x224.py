"""Classifier, ResNet-50 with the modern recipe (step 1) of the path to ConvNeXt, 300 epochs.

Published: top-1 78.82 (arXiv:2201.03545, table 10, mean of three seeds).
"""
_base_ = [
    '../_base_/models/roadmap_cls.py', 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/schedules/cls_convnext_300e.py', '../_base_/runtime/cls.py'
]
model = dict(backbone=dict(step=1), head=dict(in_channels=2048))
train_dataloader = dict(batch_size=128)
custom_hooks = []
