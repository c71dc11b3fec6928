"""24 epochs of AdamW for BEVFormer v2: half the rate in the backbone, one step after 20 epochs.

The rate is for 16 samples a step, published with 16 GPUs; for another number of samples set
``auto_scale_lr=dict(enable=True)``.
"""
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-4, betas=(0.9, 0.999), weight_decay=0.01),
    clip_grad=dict(max_norm=35, norm_type=2),
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=0.5))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=2000),
    dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[20], gamma=0.1),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=24, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
sync_bn = 'torch'
auto_scale_lr = dict(enable=False, base_batch_size=16)
