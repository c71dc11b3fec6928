"""Mask R-CNN, plain ViT-L from supervised weights, 100 epochs with large-scale jitter.

Published: box AP 49.3, mask AP 43.9 (arXiv:2111.06377, table 4; best of several lengths).
Its weights were not released. Any ViT-L of timm without layer scale, converted (family ``timm``)
to the file named below, takes their place, trained by another recipe.
"""
_base_ = './mask-rcnn_vit-l-mae_fpn_32xb2-100e_coco-1024x1024.py'
weights = 'data/weights/vit-l_supervised.pth'
model = dict(backbone=dict(init_cfg=dict(checkpoint=weights)))
