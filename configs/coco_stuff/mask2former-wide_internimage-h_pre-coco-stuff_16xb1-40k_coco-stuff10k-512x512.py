"""Mask2Former, InternImage-H, 40k iterations on COCO-Stuff 10k after 164k.

Published: mIoU 59.2 single scale, 59.6 multi-scale (InternImage repository, segmentation table).
"""
_base_ = [
    '../_base_/models/mask2former-wide_internimage.py',
    '../_base_/datasets/coco-stuff10k_512_by32.py',
    '../_base_/schedules/mask2former_40k.py', '../_base_/runtime/seg.py'
]
model = dict(decode_head=dict(num_classes=171, loss_cls=dict(class_weight=[1.0] * 171 + [0.1])))
optim_wrapper = dict(optimizer=dict(lr=1e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
train_cfg = dict(val_interval=2000)
load_from = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
             'mask2former_internimage_h_896_80k_cocostuff164k.pth')
