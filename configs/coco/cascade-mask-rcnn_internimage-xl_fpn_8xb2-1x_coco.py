"""Cascade Mask R-CNN, InternImage-XL, 1x.

Published: box AP 55.3, mask AP 48.1 (InternImage repository, detection table).
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_internimage_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/det_1x.py', '../_base_/runtime/det.py'
]
weights = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
           'internimage_xl_22k_192to384.pth')
model = dict(
    backbone=dict(arch='xlarge', init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=[192, 384, 768, 1536]))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.94))
