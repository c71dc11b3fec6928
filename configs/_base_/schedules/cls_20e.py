"""20 epochs of fine-tuning in mixed precision, cosine to 0, weight average; batches of 512.

The published cosine begins with the warm-up of 2 epochs, not behind it.
"""
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(rule='finetune', layer_decay_rate=1.0))
param_scheduler = [
    # Published: from 0. mmengine multiplies step by step, so it cannot leave 0.
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=2,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, end=20,
         convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=512)
custom_hooks = [dict(type='EMAHook', momentum=1e-4)]
