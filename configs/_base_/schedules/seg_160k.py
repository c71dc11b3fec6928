"""160k iterations of AdamW, 1500 of warm-up, linear to zero, as InternImage publishes.

Both schedules begin at once and multiply, as mmcv 1.x had it. PolyLR is at zero one iteration
before its end.
"""
_base_ = 'mmseg::_base_/schedules/schedule_160k.py'
optimizer = None
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=160001),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
