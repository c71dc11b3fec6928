"""Memory ablation: ViT-L whose blocks all attend to the whole map, recomputed backwards.

Every block takes the table of the whole map (arXiv:2111.11429).
"""
_base_ = './mask-rcnn_vit-l-mae_fpn_32xb2-50e_coco-1024x1024.py'
model = dict(backbone=dict(global_blocks=list(range(24)), with_cp=True))
