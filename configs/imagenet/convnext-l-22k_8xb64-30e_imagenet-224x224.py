"""Classifier, ConvNeXt-L of ImageNet-22K, fine-tuned for 30 epochs.

Starts from convnext_large_22k_224.pth. Published: top-1 86.6 (arXiv:2201.03545, table 1).
"""
_base_ = [
    '../_base_/models/convnext_cls_finetune.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/schedules/cls_convnext_30e.py', '../_base_/runtime/cls.py'
]
model = dict(backbone=dict(arch='large', drop_path_rate=0.3), head=dict(in_channels=1536))
train_dataloader = dict(batch_size=64)
