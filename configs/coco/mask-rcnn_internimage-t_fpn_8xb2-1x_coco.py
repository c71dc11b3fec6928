"""Mask R-CNN, InternImage-T, 1x.

Published: box AP 47.2, mask AP 42.5 (InternImage repository, detection table).
"""
_base_ = [
    '../_base_/models/mask-rcnn_internimage_fpn.py', 'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/det_1x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))
