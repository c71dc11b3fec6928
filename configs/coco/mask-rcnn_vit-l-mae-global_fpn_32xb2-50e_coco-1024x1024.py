"""Memory ablation: ViT-L whose blocks all attend to the whole map, nothing recomputed.

In the paper (arXiv:2111.11429) one image exceeds a GPU of 32 GB.
"""
_base_ = './mask-rcnn_vit-l-mae_fpn_32xb2-50e_coco-1024x1024.py'
model = dict(backbone=dict(global_blocks=list(range(24))))
