"""Classifier, InternImage-H, fine-tuned for 20 epochs from internimage_h_jointto22k_384.pth.

Published: top-1 89.6 (InternImage repository, classification table).
"""
_base_ = [
    '../_base_/models/internimage_cls_clip.py',
    '../_base_/datasets/imagenet_internimage_640.py', '../_base_/schedules/cls_20e.py',
    '../_base_/runtime/cls.py'
]
model = dict(backbone=dict(drop_path_rate=0.2))
train_dataloader = dict(batch_size=8)
