"""Classifier, ConvNeXt with the depths and widths of InternImage-pico, 2,000 iterations.

ConvNeXt's own initial weights (0.02) and layer scale (1e-6) start its blocks near zero, from where
they do not get far in so short a training; these keep the scale of their input.
Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = [
    'mmpretrain::_base_/models/convnext/convnext-base.py', '../_base_/datasets/mini_imagenet.py',
    '../_base_/schedules/mini_2k.py', '../_base_/runtime/mini_cls.py'
]
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, depths=[1, 1, 2, 1], channels=[32, 64, 128, 256]),
        layer_scale_init_value=1.0, drop_path_rate=0.0,
        init_cfg=dict(type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in',
                      nonlinearity='linear')),
    head=dict(in_channels=256, num_classes=8, topk=(1, 5), init_cfg=None),
    train_cfg=dict(_delete_=True))
train_dataloader = dict(batch_size=48)
auto_scale_lr = dict(base_batch_size=48)
