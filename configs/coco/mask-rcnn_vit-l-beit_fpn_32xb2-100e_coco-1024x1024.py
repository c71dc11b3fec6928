"""Mask R-CNN, plain ViT-L from BEiT weights, 100 epochs with large-scale jitter.

Published: box AP 53.3, mask AP 47.1 (arXiv:2111.06377, table 4; best of several lengths).
Its weights (ImageNet-1K, 800 epochs) were not released. Those for ImageNet-22K (``pt22k``, family
``beit``) take their place; they expect a mean and deviation of 127.5 in ``data_preprocessor``.
Layer scale comes from the file, and the tables of relative positions too.
"""
_base_ = './mask-rcnn_vit-l-mae_fpn_32xb2-100e_coco-1024x1024.py'
weights = 'data/weights/vit-l_beit.pth'
model = dict(backbone=dict(layer_scale=1e-5, init_cfg=dict(checkpoint=weights)))
