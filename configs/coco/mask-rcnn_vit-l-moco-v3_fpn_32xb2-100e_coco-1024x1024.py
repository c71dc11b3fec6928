"""Mask R-CNN, plain ViT-L from MoCo v3 weights, 100 epochs with large-scale jitter.

Published: box AP 49.3, mask AP 44.0 (arXiv:2111.06377, table 4; best of several lengths).
Its weights were not released; mmpretrain's ``mocov3_vit-large-p16``, converted (family
``mmpretrain``) to the file named below, takes their place.
"""
_base_ = './mask-rcnn_vit-l-mae_fpn_32xb2-100e_coco-1024x1024.py'
weights = 'data/weights/vit-l_moco-v3.pth'
model = dict(backbone=dict(init_cfg=dict(checkpoint=weights)))
optim_wrapper = dict(optimizer=dict(lr=1.6e-4))
