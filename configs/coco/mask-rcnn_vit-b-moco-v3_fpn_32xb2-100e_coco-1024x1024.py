"""Mask R-CNN, plain ViT-B from MoCo v3 weights, 100 epochs with large-scale jitter.

Published: box AP 47.9, mask AP 42.7 (arXiv:2111.06377, table 4; best of several lengths).
Weights: ``vit-b-300ep.pth.tar``, converted (family ``moco-v3``) to the file named below.
"""
_base_ = './mask-rcnn_vit-b-mae_fpn_32xb2-100e_coco-1024x1024.py'
weights = 'data/weights/vit-b_moco-v3.pth'
model = dict(backbone=dict(init_cfg=dict(checkpoint=weights)))
optim_wrapper = dict(optimizer=dict(lr=1.6e-4))
