"""Mask2Former, InternImage-H, 40k iterations on NYU Depth V2.

Published: mIoU 67.1 single scale, 68.1 multi-scale (InternImage repository, segmentation table).
"""
_base_ = [
    '../_base_/models/mask2former_internimage.py', '../_base_/datasets/nyu-depth-v2_480_by32.py',
    '../_base_/schedules/mask2former_40k.py', '../_base_/runtime/seg.py'
]
weights = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
           'internimage_h_jointto22k_384.pth')
model = dict(
    data_preprocessor=dict(size=(480, 480)),
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(num_classes=40, loss_cls=dict(class_weight=[1.0] * 40 + [0.1])))
optim_wrapper = dict(optimizer=dict(lr=2e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
train_cfg = dict(val_interval=2000)
