"""Memory ablation: ViT-L whose blocks all attend within windows.

Published: box AP 50.7 (arXiv:2111.11429, text).
"""
_base_ = './mask-rcnn_vit-l-mae_fpn_32xb2-50e_coco-1024x1024.py'
model = dict(backbone=dict(global_blocks=[]))
