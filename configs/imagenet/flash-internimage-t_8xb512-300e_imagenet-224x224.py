"""Classifier, FlashInternImage-T, 300 epochs.

Published: top-1 83.6 (DCNv4 repository, classification table).
"""
_base_ = [
    '../_base_/models/flash-internimage_cls.py',
    '../_base_/datasets/imagenet_internimage_224.py', '../_base_/schedules/cls_300e.py',
    '../_base_/runtime/cls.py'
]
train_dataloader = dict(batch_size=512)
