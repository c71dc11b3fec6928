"""Classifier, InternImage-pico (DCNv3), 1,000 iterations on the mini ImageNet set.

Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = [
    '../_base_/models/internimage_cls.py', '../_base_/datasets/mini_imagenet.py',
    '../_base_/schedules/mini_1k.py', '../_base_/runtime/mini_cls.py'
]
model = dict(
    backbone=dict(arch='pico', layer_scale=1.0, drop_path_rate=0.0),
    neck=dict(in_channels=256),
    head=dict(in_channels=384, num_classes=8, topk=(1, 5)),
    train_cfg=dict(_delete_=True))
train_dataloader = dict(batch_size=48)
auto_scale_lr = dict(base_batch_size=48)
