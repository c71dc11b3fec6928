"""As ``dino_20k.py`` for a composite backbone, which trains at the full rate throughout.

The published rule of layer decay (0.94) knows no name of a composite backbone, so that it reaches
the level embedding alone: layer 0 of 52. To decay both halves like an InternImage, set
``layer_decay_rate=0.94, layer_zero_keys=['level_embed']`` in the place of ``custom_keys``.
"""
_base_ = './dino_20k.py'
optim_wrapper = dict(
    paramwise_cfg=dict(_delete_=True, offset_lr_scale=0.001,
                       custom_keys=dict(level_embed=dict(lr_mult=0.94**51))))
