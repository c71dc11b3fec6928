"""Position ablation: ViT-L from BEiT weights, its relative positions from zero.

The paper (arXiv:2111.11429) loses 0.1 to 0.3 box AP by it. Weights as for its neighbour.
"""
_base_ = './mask-rcnn_vit-l-beit_fpn_32xb2-100e_coco-1024x1024.py'
model = dict(backbone=dict(init_cfg=dict(skip=['rel_pos'])))
