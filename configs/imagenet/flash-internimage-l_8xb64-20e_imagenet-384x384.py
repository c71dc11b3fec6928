"""Classifier, FlashInternImage-L, fine-tuned for 20 epochs from ImageNet-22K weights.

Published: top-1 88.1 (DCNv4 repository, classification table).
"""
_base_ = [
    '../_base_/models/internimage_cls_finetune.py',
    '../_base_/datasets/imagenet_internimage_384.py', '../_base_/schedules/cls_20e.py',
    '../_base_/runtime/cls.py'
]
model = dict(
    backbone=dict(type='FlashInternImage', arch='large', layer_scale=1e-5, drop_path_rate=0.1),
    neck=dict(in_channels=1280), head=dict(in_channels=1920))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9, offset_lr_scale=0.1))
train_dataloader = dict(batch_size=64)
