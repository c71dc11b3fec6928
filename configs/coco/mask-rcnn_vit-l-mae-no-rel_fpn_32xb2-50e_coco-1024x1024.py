"""Position ablation: ViT-L from MAE weights with absolute positions alone.

Published: box AP 53.0 (arXiv:2111.11429, text).
"""
_base_ = './mask-rcnn_vit-l-mae_fpn_32xb2-50e_coco-1024x1024.py'
model = dict(backbone=dict(rel_pos='none'))
