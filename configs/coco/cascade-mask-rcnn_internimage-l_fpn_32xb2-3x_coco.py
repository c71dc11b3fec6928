"""Cascade Mask R-CNN, InternImage-L, 3x.

Published: box AP 56.1, mask AP 48.5 (InternImage repository, detection table).
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_internimage_fpn.py', '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det_ema.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_l_22k_192to384.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))
optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(layer_decay_rate=0.9, offset_lr_scale=0.01))
auto_scale_lr = dict(base_batch_size=64)
