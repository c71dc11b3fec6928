"""Classifier, InternImage-G, fine-tuned for 20 epochs from internimage_g_pretrainto22k_384.pth.

Published: top-1 90.1 (InternImage repository, classification table).
"""
_base_ = [
    '../_base_/models/internimage_cls_clip.py',
    '../_base_/datasets/imagenet_internimage_512.py', '../_base_/schedules/cls_20e.py',
    '../_base_/runtime/cls.py'
]
model = dict(
    backbone=dict(arch='giant', drop_path_rate=0.4), neck=dict(in_channels=(2048, 4096)))
train_dataloader = dict(batch_size=8)
