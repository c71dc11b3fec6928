"""24 epochs of AdamW for BEVFormer v2 with layer decay instead of one rate of the backbone."""
_base_ = './bevformer-v2_24e.py'
optim_wrapper = dict(
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.96))
