"""Mask R-CNN, InternImage-S, 1x.

Published: box AP 47.8, mask AP 43.3 (InternImage repository, detection table).
"""
_base_ = [
    '../_base_/models/mask-rcnn_internimage_fpn.py', 'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/det_1x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_s_1k_224.pth'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.3,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=[80, 160, 320, 640]))
