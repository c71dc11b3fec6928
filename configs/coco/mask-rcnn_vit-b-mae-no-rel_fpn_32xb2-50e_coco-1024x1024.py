"""Position ablation: ViT-B from MAE weights with absolute positions alone.

The paper (arXiv:2111.11429) loses 0.2 to 0.3 box AP by it.
"""
_base_ = './mask-rcnn_vit-b-mae_fpn_32xb2-50e_coco-1024x1024.py'
model = dict(backbone=dict(rel_pos='none'))
