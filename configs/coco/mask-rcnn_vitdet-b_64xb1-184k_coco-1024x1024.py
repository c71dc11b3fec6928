"""Mask R-CNN, ViTDet-B from MAE weights, 100 epochs with large-scale jitter.

Published: box AP 51.6, mask AP 45.9 (detectron2, projects/ViTDet).
Weights: ``mae_pretrain_vit_base.pth``, converted (family ``mae``) to the file named below.
"""
_base_ = [
    '../_base_/models/mask-rcnn_vitdet.py', '../_base_/datasets/coco_lsj_1024_iters.py',
    '../_base_/schedules/det_vitdet_184k.py', '../_base_/runtime/det_iters.py'
]
weights = 'data/weights/vit-b_mae.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))
