"""DINO 4-scale, FlashInternImage-B, 1x.

Published: box AP 56.0 (DCNv4 repository, detection table).
"""
_base_ = [
    '../_base_/models/dino-4scale_flash-internimage.py', '../_base_/datasets/coco_ms-crop_dino.py',
    '../_base_/schedules/dino_1x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_b_1k_224.pth'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.3, with_cp=True,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=[224, 448, 896]))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=32)
