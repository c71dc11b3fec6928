"""Mask R-CNN, FlashInternImage-B, 3x.

Published: box AP 50.6, mask AP 45.4 (DCNv4 repository, detection table).
"""
_base_ = [
    '../_base_/models/mask-rcnn_flash-internimage_fpn.py', '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_b_1k_224.pth'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.4, with_cp=True,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=[112, 224, 448, 896]))
optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(layer_decay_rate=0.9, offset_lr_scale=0.01))
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=64)
