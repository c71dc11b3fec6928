"""Classifier, ViT of 3 blocks with patches of 4 pixels, 1,000 iterations on mini ImageNet.

Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = './vit-pico-dcnv4_1xb48-1k_mini-imagenet-64x64.py'
model = dict(backbone=dict(
    type='mmpretrain.VisionTransformer', with_cls_token=False, out_type='featmap',
    arch=dict(_delete_=True, embed_dims=64, num_layers=3, num_heads=4,
              feedforward_channels=128)))
