"""Cascade Mask R-CNN, FlashInternImage-L, 3x.

Published: box AP 56.7, mask AP 48.9 (DCNv4 repository, detection table).
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_flash-internimage_fpn.py',
    '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det_ema.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_l_22k_384.pth'
model = dict(backbone=dict(with_cp=True, init_cfg=dict(type='Pretrained', checkpoint=weights)))
optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(layer_decay_rate=0.9, offset_lr_scale=0.01))
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=64)
