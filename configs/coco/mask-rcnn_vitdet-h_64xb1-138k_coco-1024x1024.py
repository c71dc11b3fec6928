"""Mask R-CNN, ViTDet-H from MAE weights, 75 epochs with large-scale jitter.

Published: box AP 56.7, mask AP 50.2 (detectron2, projects/ViTDet).
Weights: ``mae_pretrain_vit_huge.pth``, converted (family ``mae``, ``pos_grid`` 14 14) to the file
named below; patches of 14 pixels become patches of 16.
"""
_base_ = [
    '../_base_/models/mask-rcnn_vitdet.py', '../_base_/datasets/coco_lsj_1024_iters.py',
    '../_base_/schedules/det_vitdet_138k.py', '../_base_/runtime/det_iters.py'
]
weights = 'data/weights/vit-h_mae.pth'
model = dict(
    backbone=dict(arch='huge', drop_path_rate=0.5,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=1280))
