"""seg_160k with the head's queries and their branches at the rate of the backbone's stem."""
_base_ = './seg_160k.py'
optim_wrapper = dict(paramwise_cfg=dict(layer_zero_keys=[
    'decode_head.mask_embed', 'decode_head.cls_embed', 'decode_head.level_embed',
    'decode_head.query_embed', 'decode_head.query_feat']))
