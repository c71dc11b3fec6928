"""48 epochs of AdamW for BEVFormer v2, one step after 44 epochs."""
_base_ = './bevformer-v2_24e.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=2000),
    dict(type='MultiStepLR', begin=0, end=48, by_epoch=True, milestones=[44], gamma=0.1),
]
train_cfg = dict(max_epochs=48)
