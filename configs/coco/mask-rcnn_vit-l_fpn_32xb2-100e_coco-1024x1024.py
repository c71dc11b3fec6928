"""Mask R-CNN, plain ViT-L, 100 epochs with large-scale jitter.

Published from MAE weights: box AP 53.3, mask AP 47.2 (arXiv:2111.06377, table 4; best of several
lengths). Weights as for ViT-B.
"""
_base_ = './mask-rcnn_vit-b_fpn_32xb2-100e_coco-1024x1024.py'
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.3),
    neck=dict(in_channels=[1024, 1024, 1024, 1024]))
