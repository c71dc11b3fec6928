"""Mask2Former, InternImage-H, 80k iterations on COCO-Stuff 164k.

Published: mIoU 52.6 single scale, 52.8 multi-scale (InternImage repository, segmentation table).
"""
_base_ = [
    '../_base_/models/mask2former-wide_internimage.py',
    '../_base_/datasets/coco-stuff164k_896_by32.py',
    '../_base_/schedules/mask2former_80k.py', '../_base_/runtime/seg.py'
]
weights = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
           'internimage_h_jointto22k_384.pth')
model = dict(
    data_preprocessor=dict(size=(896, 896)),
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(num_classes=171, loss_cls=dict(class_weight=[1.0] * 171 + [0.1])))
optim_wrapper = dict(optimizer=dict(lr=2e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
