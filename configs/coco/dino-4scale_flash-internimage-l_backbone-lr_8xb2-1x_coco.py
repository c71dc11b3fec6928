"""DINO 4-scale, FlashInternImage-L, 1x. A tenth of the rate in the backbone.

Published: box AP 58.8 (DCNv4 repository, detection table).
"""
_base_ = [
    '../_base_/models/dino-4scale_flash-internimage.py', '../_base_/datasets/coco_ms-crop_dino.py',
    '../_base_/schedules/dino_1x_backbone-lr.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_l_22k_384.pth'
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.4, with_cp=True,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=[320, 640, 1280]))
