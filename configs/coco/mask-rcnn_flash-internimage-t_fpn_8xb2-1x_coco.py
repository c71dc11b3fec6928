"""Mask R-CNN, FlashInternImage-T, 1x.

Published: box AP 48.0, mask AP 43.1 (DCNv4 repository, detection table).
"""
_base_ = [
    '../_base_/models/mask-rcnn_flash-internimage_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py', '../_base_/schedules/det_1x.py',
    '../_base_/runtime/det.py'
]
