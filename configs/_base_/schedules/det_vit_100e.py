"""100 epochs of batch 64, AdamW in mixed precision, quarter-epoch warm-up, cosine to 0.

The recipe of arXiv:2111.11429 for MAE weights: no layer decay, no gradient clipping, no average
of weights. Its learning rate and weight decay by initialisation: random 1.6e-4 and 0.2;
supervised, BEiT and MAE 8e-5 and 0.1; MoCo v3 1.6e-4 and 0.1. Its other lengths (25 and 50 epochs;
200 and 400 at random) end the cosine there: ``train_cfg.max_epochs`` and ``param_scheduler.1.end``.
"""
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=0.25, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, begin=0, end=100, convert_to_iter_based=True),
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=8e-5, betas=(0.9, 0.999), weight_decay=0.1),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=1.0, no_decay_keys=['norm', 'pos_embed', 'rel_pos']))
auto_scale_lr = dict(enable=False, base_batch_size=64)
