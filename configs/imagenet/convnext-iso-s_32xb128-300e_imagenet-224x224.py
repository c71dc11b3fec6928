"""Classifier, isotropic ConvNeXt-S, 300 epochs.

Published: top-1 79.7 (arXiv:2201.03545, table 2; its repository says 78.7).
"""
_base_ = [
    '../_base_/models/convnext_iso_cls.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/schedules/cls_convnext_iso_300e.py', '../_base_/runtime/cls.py'
]
train_dataloader = dict(batch_size=128)
