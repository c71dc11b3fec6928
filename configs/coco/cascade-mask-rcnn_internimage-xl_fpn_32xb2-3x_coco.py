"""Cascade Mask R-CNN, InternImage-XL, 3x.

Published: box AP 56.2, mask AP 48.8 (InternImage repository, detection table).
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_internimage_fpn.py', '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det_ema.py'
]
weights = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
           'internimage_xl_22k_192to384.pth')
model = dict(
    backbone=dict(arch='xlarge', drop_path_rate=0.6,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=[192, 384, 768, 1536]))
optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(layer_decay_rate=0.9, offset_lr_scale=0.01))
auto_scale_lr = dict(base_batch_size=64)
