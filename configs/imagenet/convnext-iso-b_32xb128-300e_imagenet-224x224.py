"""Classifier, isotropic ConvNeXt-B, 300 epochs.

Published: top-1 82.0 (arXiv:2201.03545, table 2).
"""
_base_ = [
    '../_base_/models/convnext_iso_cls.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/schedules/cls_convnext_iso_300e.py', '../_base_/runtime/cls.py'
]
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.2), head=dict(in_channels=768))
train_dataloader = dict(batch_size=128)
