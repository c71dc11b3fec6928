"""Mask R-CNN, FlashInternImage-T, 1x.

Published: box AP 48.0, mask AP 43.1 (DCNv4 repository, detection table).
"""
_base_ = [
    '../_base_/models/mask-rcnn_flash-internimage_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/det_1x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_t_1k_224.pth'
model = dict(backbone=dict(with_cp=True, init_cfg=dict(type='Pretrained', checkpoint=weights)))
