"""Classifier, the last step of the path from ResNet to ConvNeXt at pico size, 2,000 iterations.

Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = [
    '../_base_/models/roadmap_cls.py', '../_base_/datasets/mini_imagenet.py',
    '../_base_/schedules/mini_2k.py', '../_base_/runtime/mini_cls.py'
]
model = dict(
    backbone=dict(arch='pico', drop_path_rate=0.0,
                  init_cfg=dict(type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in',
                                nonlinearity='linear')),
    head=dict(in_channels=128, num_classes=8, topk=(1, 5)),
    train_cfg=dict(_delete_=True))
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_dataloader = dict(batch_size=48)
auto_scale_lr = dict(base_batch_size=48)
