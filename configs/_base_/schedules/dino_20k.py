"""20,000 iterations of AdamW for DINO after Objects365: warm-up, then a constant rate.

The heads' sampling offsets train at a thousandth of the rate, as published.
"""
train_cfg = dict(type='IterBasedTrainLoop', max_iters=20000, val_interval=2000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.94, offset_lr_scale=0.001,
                       layer_zero_keys=['level_embed']))
auto_scale_lr = dict(enable=False, base_batch_size=16)
