"""The recipe of ViTDet-H in 138,281 iterations, where norms and position embedding decay, too."""
_base_ = './det_vitdet_184k.py'
train_cfg = dict(max_iters=138281)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=188),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=138281, milestones=[122916, 133159],
         gamma=0.1),
]
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9, custom_keys={
    name: dict(decay_mult=1.0) for name in ('.norm1.', '.norm2.', 'pos_embed')}))
