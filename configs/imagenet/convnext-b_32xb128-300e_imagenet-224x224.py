"""Classifier, ConvNeXt-B, 300 epochs.

Published: top-1 83.8 (arXiv:2201.03545, table 1; convnext_base_1k_224_ema.pth).
"""
_base_ = [
    'mmpretrain::_base_/models/convnext/convnext-base.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/schedules/cls_convnext_300e.py', '../_base_/runtime/cls.py'
]
model = dict(backbone=dict(drop_path_rate=0.5))
train_dataloader = dict(batch_size=128)
