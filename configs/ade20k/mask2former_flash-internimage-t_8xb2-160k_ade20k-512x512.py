"""Mask2Former, FlashInternImage-T, 160k iterations.

Published: mIoU 51.2 single scale (DCNv4 repository, segmentation table).
"""
_base_ = [
    '../_base_/models/mask2former_flash-internimage.py', '../_base_/datasets/ade20k_512_by32.py',
    '../_base_/schedules/mask2former_160k.py', '../_base_/runtime/seg.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_t_1k_224.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    clip_grad=dict(max_norm=0.01),
    paramwise_cfg=dict(layer_decay_rate=0.9))
train_cfg = dict(val_interval=5000)
