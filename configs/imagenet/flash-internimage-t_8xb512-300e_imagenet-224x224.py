"""Classifier, FlashInternImage-T, 300 epochs.

Published: top-1 83.6 (DCNv4 repository, classification table).
"""
_base_ = [
    '../_base_/models/flash-internimage_cls.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/schedules/cls_300e.py', '../_base_/runtime/cls.py'
]
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
auto_scale_lr = dict(base_batch_size=4096)
custom_hooks = [dict(type='EMAHook', momentum=1e-4)]
