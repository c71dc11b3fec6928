"""Cascade Mask R-CNN, ViTDet-L from MAE weights, 100 epochs with large-scale jitter.

Published: box AP 57.6, mask AP 50.0 (detectron2, projects/ViTDet).
Weights: ``mae_pretrain_vit_large.pth``, converted (family ``mae``) to the file named below.
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_vitdet.py', '../_base_/datasets/coco_lsj_1024_iters.py',
    '../_base_/schedules/det_vitdet_184k.py', '../_base_/runtime/det_iters.py'
]
weights = 'data/weights/vit-l_mae.pth'
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.4,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=1024))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
