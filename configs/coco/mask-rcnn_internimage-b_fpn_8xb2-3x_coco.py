"""Mask R-CNN, InternImage-B, 3x.

Published: box AP 50.3, mask AP 44.8 (InternImage repository, detection table).
"""
_base_ = [
    '../_base_/models/mask-rcnn_internimage_fpn.py', '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_b_1k_224.pth'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.4,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=[112, 224, 448, 896]))
