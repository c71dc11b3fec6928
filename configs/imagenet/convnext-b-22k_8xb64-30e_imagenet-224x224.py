"""Classifier, ConvNeXt-B of ImageNet-22K, fine-tuned for 30 epochs.

Starts from convnext_base_22k_224.pth. Published: top-1 85.8 (arXiv:2201.03545, table 1).
"""
_base_ = [
    '../_base_/models/convnext_cls_finetune.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/schedules/cls_convnext_30e.py', '../_base_/runtime/cls.py'
]
model = dict(backbone=dict(drop_path_rate=0.2))
train_dataloader = dict(batch_size=64)
