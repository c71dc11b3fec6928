"""Classifier, isotropic ConvNeXt-L, 300 epochs.

Published: top-1 82.6 (arXiv:2201.03545, table 2).
"""
_base_ = [
    '../_base_/models/convnext_iso_cls.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/schedules/cls_convnext_iso_300e.py', '../_base_/runtime/cls.py'
]
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.5), head=dict(in_channels=1024))
train_dataloader = dict(batch_size=128)
