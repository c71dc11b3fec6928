"""12 epochs of AdamW for DINO: layer decay 0.9, clipped gradients, one step after 11 epochs.

The level embedding trains at the rate of layer 0, as published.
"""
_base_ = './det_1x.py'
optim_wrapper = dict(
    optimizer=dict(weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(layer_decay_rate=0.9, layer_zero_keys=['level_embed']))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[11], gamma=0.1),
]
