"""DINO 4-scale, InternImage-L, 1x. A tenth of the rate in the backbone.

Published: box AP 57.6 (InternImage repository, detection table).
"""
_base_ = [
    '../_base_/models/dino-4scale_internimage.py', '../_base_/datasets/coco_ms-crop_dino.py',
    '../_base_/schedules/dino_1x_backbone-lr.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_l_22k_192to384.pth'
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.4,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=[320, 640, 1280]))
