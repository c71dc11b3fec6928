"""12 epochs of AdamW for DINO: a tenth of the rate in the backbone, the same decay everywhere."""
_base_ = './dino_1x.py'
optim_wrapper = dict(
    optimizer=dict(weight_decay=0.05),
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, custom_keys=dict(backbone=dict(lr_mult=0.1))))
