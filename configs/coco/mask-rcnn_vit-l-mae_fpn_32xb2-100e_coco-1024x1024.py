"""Mask R-CNN, plain ViT-L from MAE weights, 100 epochs with large-scale jitter.

Published: box AP 53.3, mask AP 47.2 (arXiv:2111.06377, table 4; best of several lengths).
Weights: ``mae_pretrain_vit_large.pth``, converted (family ``mae``) to the file named below.
"""
_base_ = [
    '../_base_/models/mask-rcnn_plain-vit_fpn.py', '../_base_/datasets/coco_lsj_1024.py',
    '../_base_/schedules/det_vit_100e.py', '../_base_/runtime/det.py'
]
weights = 'data/weights/vit-l_mae.pth'
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.3,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=[1024, 1024, 1024, 1024]))
