"""Classifier, InternImage-T, 300 epochs.

Published: top-1 83.5 (InternImage repository, classification table).
"""
_base_ = [
    '../_base_/models/internimage_cls.py',
    '../_base_/datasets/imagenet_internimage_224.py', '../_base_/schedules/cls_300e.py',
    '../_base_/runtime/cls.py'
]
train_dataloader = dict(batch_size=512)
