"""Isotropic ConvNeXt: as cls_convnext_300e.py with 50 epochs of warm-up."""
_base_ = './cls_convnext_300e.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=50,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=50, end=300,
         convert_to_iter_based=True),
]
