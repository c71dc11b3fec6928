"""Cascade Mask R-CNN, FlashInternImage-L, 1x.

Published: box AP 55.6, mask AP 48.2 (DCNv4 repository, detection table).
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_flash-internimage_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/det_1x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_l_22k_384.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.94))
