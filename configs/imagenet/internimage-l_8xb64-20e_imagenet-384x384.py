"""Classifier, InternImage-L, fine-tuned for 20 epochs from internimage_l_22k_192to384.pth.

Published: top-1 87.7 (InternImage repository, classification table).
"""
_base_ = [
    '../_base_/models/internimage_cls_finetune.py',
    '../_base_/datasets/imagenet_internimage_384.py', '../_base_/schedules/cls_20e.py',
    '../_base_/runtime/cls.py'
]
model = dict(
    backbone=dict(arch='large', layer_scale=1e-5, drop_path_rate=0.1),
    neck=dict(in_channels=1280), head=dict(in_channels=1920))
train_dataloader = dict(batch_size=64)
