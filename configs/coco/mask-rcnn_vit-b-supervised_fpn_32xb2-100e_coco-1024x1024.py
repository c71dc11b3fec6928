"""Mask R-CNN, plain ViT-B from supervised weights, 100 epochs with large-scale jitter.

Published: box AP 47.9, mask AP 42.9 (arXiv:2111.06377, table 4; best of several lengths).
Weights: DeiT's ``deit_base_patch16_224-b5f2ef4d.pth``, converted (family ``timm``) to the file
named below.
"""
_base_ = './mask-rcnn_vit-b-mae_fpn_32xb2-100e_coco-1024x1024.py'
weights = 'data/weights/vit-b_supervised.pth'
model = dict(backbone=dict(init_cfg=dict(checkpoint=weights)))
