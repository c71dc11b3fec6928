"""Cascade Mask R-CNN, InternImage-L, 1x.

Published: box AP 54.9, mask AP 47.7 (InternImage repository, detection table).
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_internimage_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/det_1x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_l_22k_192to384.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.94))
