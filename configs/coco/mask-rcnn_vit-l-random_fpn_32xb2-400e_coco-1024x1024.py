"""Mask R-CNN, plain ViT-L from scratch, 400 epochs with large-scale jitter.

Published: box AP 50.7 (arXiv:2111.11429, text; best of 100, 200 and 400 epochs).
The longest of its lengths, at which most runs overfit.
"""
_base_ = [
    '../_base_/models/mask-rcnn_plain-vit_fpn.py', '../_base_/datasets/coco_lsj_1024.py',
    '../_base_/schedules/det_vit_400e.py', '../_base_/runtime/det.py'
]
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.3),
    neck=dict(in_channels=[1024, 1024, 1024, 1024]))
optim_wrapper = dict(optimizer=dict(lr=1.6e-4, weight_decay=0.2))
