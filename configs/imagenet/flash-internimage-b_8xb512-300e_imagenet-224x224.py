"""Classifier, FlashInternImage-B, 300 epochs.

Published: top-1 84.9 (DCNv4 repository, classification table).
"""
_base_ = [
    '../_base_/models/flash-internimage_cls.py',
    '../_base_/datasets/imagenet_internimage_224.py', '../_base_/schedules/cls_300e.py',
    '../_base_/runtime/cls.py'
]
model = dict(
    backbone=dict(arch='base', layer_scale=1e-5, drop_path_rate=0.5),
    neck=dict(in_channels=896), head=dict(in_channels=1344))
train_dataloader = dict(batch_size=512)
