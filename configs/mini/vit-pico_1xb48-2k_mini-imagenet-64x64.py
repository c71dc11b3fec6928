"""Classifier, ViT of 6 blocks with patches of 8 pixels, 2,000 iterations.

Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = './vit-pico-dcnv4_1xb48-2k_mini-imagenet-64x64.py'
model = dict(backbone=dict(
    type='mmpretrain.VisionTransformer', with_cls_token=False, out_type='featmap',
    arch=dict(_delete_=True, embed_dims=64, num_layers=6, num_heads=4,
              feedforward_channels=192)))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
