"""Mask R-CNN, plain ViT-B from scratch, 100 epochs with large-scale jitter.

Published: box AP 48.9 (arXiv:2111.11429, text; best of 100, 200 and 400 epochs).
The length of the tuning of rate, decay and stochastic depth.
"""
_base_ = [
    '../_base_/models/mask-rcnn_plain-vit_fpn.py', '../_base_/datasets/coco_lsj_1024.py',
    '../_base_/schedules/det_vit_100e.py', '../_base_/runtime/det.py'
]
optim_wrapper = dict(optimizer=dict(lr=1.6e-4, weight_decay=0.2))
