"""160k iterations as ConvNeXt trains UperNet: seg_160k at 1e-4, one rate per stage."""
_base_ = './seg_160k.py'
optim_wrapper = dict(
    optimizer=dict(lr=1e-4), paramwise_cfg=dict(rule='stage_wise', layer_decay_rate=0.9))
