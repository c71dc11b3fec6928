"""Mask R-CNN, InternImage-T, 3x.

Published: box AP 49.1, mask AP 43.7 (InternImage repository, detection table).
"""
_base_ = [
    '../_base_/models/mask-rcnn_internimage_fpn.py', '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))
