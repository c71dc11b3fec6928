"""Mask2Former with InternImage-H (DCNv3): 1024 channels, 200 queries."""
_base_ = './mask2former_internimage.py'
width = 1024
attention = dict(embed_dims=width, num_heads=32)
layer = dict(self_attn_cfg=attention,
             ffn_cfg=dict(embed_dims=width, feedforward_channels=4 * width))
position = dict(num_feats=width // 2)
model = dict(decode_head=dict(
    feat_channels=width, out_channels=width, num_queries=200, positional_encoding=position,
    pixel_decoder=dict(encoder=dict(layer_cfg=layer), positional_encoding=position),
    transformer_decoder=dict(layer_cfg=dict(cross_attn_cfg=attention, **layer))))
