"""Classifier, ViT-pico with DCNv4 for attention, patches of 8 pixels, 2,000 iterations.

Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = [
    '../_base_/models/vit_dcnv4_cls.py', '../_base_/datasets/mini_imagenet.py',
    '../_base_/schedules/mini_2k.py', '../_base_/runtime/mini_cls.py'
]
model = dict(
    backbone=dict(arch='pico', img_size=64, patch_size=8, drop_path_rate=0.0),
    head=dict(in_channels=64, num_classes=8, topk=(1, 5)),
    train_cfg=dict(_delete_=True))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
train_dataloader = dict(batch_size=48)
auto_scale_lr = dict(base_batch_size=48)
