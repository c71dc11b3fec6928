"""Mask R-CNN, plain ViT-B from MAE weights, 50 epochs with large-scale jitter.

Published: box AP 50.1 (arXiv:2111.11429, text). The setting of its ablations.
Weights: ``mae_pretrain_vit_base.pth``, converted (family ``mae``) to the file named below.
"""
_base_ = [
    '../_base_/models/mask-rcnn_plain-vit_fpn.py', '../_base_/datasets/coco_lsj_1024.py',
    '../_base_/schedules/det_vit_50e.py', '../_base_/runtime/det.py'
]
weights = 'data/weights/vit-b_mae.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))
