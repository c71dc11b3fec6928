"""Mask R-CNN, plain ViT-B from MAE weights, 100 epochs with large-scale jitter.

Published: box AP 50.3, mask AP 44.9 (arXiv:2111.06377, table 4; best of several lengths).
Weights: ``mae_pretrain_vit_base.pth``, converted (family ``mae``) to the file named below.
"""
_base_ = [
    '../_base_/models/mask-rcnn_plain-vit_fpn.py', '../_base_/datasets/coco_lsj_1024.py',
    '../_base_/schedules/det_vit_100e.py', '../_base_/runtime/det.py'
]
weights = 'data/weights/vit-b_mae.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))
