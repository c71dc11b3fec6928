"""Classifier, InternImage-H at 384, fine-tuned for 20 epochs with layer-wise decay of the rate.

Starts from internimage_h_jointto22k_384.pth. A published recipe, without a figure.
"""
_base_ = [
    '../_base_/models/internimage_cls_clip.py',
    '../_base_/datasets/imagenet_internimage_384.py', '../_base_/schedules/cls_20e.py',
    '../_base_/runtime/cls.py'
]
model = dict(backbone=dict(drop_path_rate=0.2))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9, offset_lr_scale=0.1))
train_dataloader = dict(batch_size=16)
