"""ConvNeXt on ImageNet-1K: as cls_300e.py in full precision, without clipping, down to 1e-6.

Here the cosine begins behind the warm-up.
"""
_base_ = './cls_300e.py'
optim_wrapper = dict(type='OptimWrapper', clip_grad=None)
param_scheduler = [
    # Published: from 0. mmengine multiplies step by step, so it cannot leave 0.
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=20,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=20, end=300,
         convert_to_iter_based=True),
]
