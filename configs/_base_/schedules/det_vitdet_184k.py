"""184,375 iterations of batch 64, AdamW in mixed precision, two steps down, layer decay.

The recipe of ViTDet-B (arXiv:2203.16527, detectron2). Everything decays there but the norms of the
backbone and its position embedding: biases and relative positions do, as do the channel norms of
pyramid and heads, which detectron2 does not count as norms.
"""
train_cfg = dict(type='IterBasedTrainLoop', max_iters=184375, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=184375, milestones=[163889, 177546],
         gamma=0.1),
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.7, custom_keys={
        '.': dict(decay_mult=1.0),  # every name has a dot; longer keys come first
        '.norm1.': dict(decay_mult=0.0), '.norm2.': dict(decay_mult=0.0),
        'pos_embed': dict(decay_mult=0.0)}))
auto_scale_lr = dict(enable=False, base_batch_size=64)
