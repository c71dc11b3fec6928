"""Mask R-CNN, FlashInternImage-B, 1x.

Published: box AP 50.1, mask AP 44.5 (DCNv4 repository, detection table).
"""
_base_ = [
    '../_base_/models/mask-rcnn_flash-internimage_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/det_1x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_b_1k_224.pth'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.3, with_cp=True,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=[112, 224, 448, 896]))
