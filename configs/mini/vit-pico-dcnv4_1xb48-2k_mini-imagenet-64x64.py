"""Classifier, ViT-pico with DCNv4 for attention, patches of 8 pixels, 2,000 iterations.

Initial weights that keep the scale of their input, as in the config of ConvNeXt beside it.
Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = [
    '../_base_/models/vit_dcnv4_cls.py', '../_base_/datasets/mini_imagenet.py',
    '../_base_/schedules/mini_2k.py', '../_base_/runtime/mini_cls.py'
]
model = dict(
    backbone=dict(arch='pico', img_size=64, patch_size=8, drop_path_rate=0.0),
    head=dict(in_channels=64, num_classes=8, topk=(1, 5)),
    init_cfg=[dict(type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in',
                   nonlinearity='linear')],
    train_cfg=dict(_delete_=True))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
train_dataloader = dict(batch_size=48)
auto_scale_lr = dict(base_batch_size=48)
