"""ConvNeXt on ImageNet-22K: 90 epochs, 5 of warm-up, no average of the weights, no evaluation."""
_base_ = './cls_convnext_300e.py'
train_cfg = dict(max_epochs=90)
val_cfg = None
test_cfg = None
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=5,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=5, end=90,
         convert_to_iter_based=True),
]
custom_hooks = []
