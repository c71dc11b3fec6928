"""Classifier, InternImage-XL, fine-tuned for 20 epochs from internimage_xl_22k_192to384.pth.

Published: top-1 88.0 (InternImage repository, classification table).
"""
_base_ = [
    '../_base_/models/internimage_cls_finetune.py',
    '../_base_/datasets/imagenet_internimage_384.py', '../_base_/schedules/cls_20e.py',
    '../_base_/runtime/cls.py'
]
model = dict(
    backbone=dict(arch='xlarge', layer_scale=1e-5, drop_path_rate=0.2),
    neck=dict(in_channels=1536), head=dict(in_channels=2304))
train_dataloader = dict(batch_size=64)
