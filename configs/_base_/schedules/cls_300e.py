"""300 epochs of AdamW in mixed precision, 20 of warm-up, cosine, weight average; batches of 4096.

The published cosine begins with the warm-up, not behind it; both from 0 give its rates.
"""
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=20,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, by_epoch=True, begin=0, end=300,
         convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=4096)
custom_hooks = [dict(type='EMAHook', momentum=1e-4)]
