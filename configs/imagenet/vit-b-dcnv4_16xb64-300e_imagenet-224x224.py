"""Classifier, ViT-B with DCNv4 for self-attention, mean of the map, DeiT's recipe of 300 epochs.

Published: top-1 81.9 (arXiv:2401.06197, table 8); the group size is not published.
"""
_base_ = [
    '../_base_/models/vit_dcnv4_cls.py', 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/schedules/cls_deit_300e.py', '../_base_/runtime/cls.py'
]
train_dataloader = dict(batch_size=64, sampler=dict(type='RepeatAugSampler', shuffle=True))
