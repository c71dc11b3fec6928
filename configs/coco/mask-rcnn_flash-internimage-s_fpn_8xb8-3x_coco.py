"""Mask R-CNN, FlashInternImage-S, 3x.

Published: box AP 50.5, mask AP 44.9 (DCNv4 repository, detection table).
"""
_base_ = [
    '../_base_/models/mask-rcnn_flash-internimage_fpn.py', '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_s_1k_224.pth'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.4, with_cp=True,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=[80, 160, 320, 640]))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=64)
