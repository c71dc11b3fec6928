"""The 100-epoch recipe of the plain ViT in 50 epochs: the cosine ends there."""
_base_ = './det_vit_100e.py'
train_cfg = dict(max_epochs=50)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=0.25, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, begin=0, end=50, convert_to_iter_based=True),
]
