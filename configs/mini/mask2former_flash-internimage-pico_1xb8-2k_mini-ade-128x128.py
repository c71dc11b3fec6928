"""Mask2Former, FlashInternImage-pico, 20 queries, 2,000 iterations on the mini ADE20K set."""
_base_ = [
    '../_base_/models/mask2former_flash-internimage.py', '../_base_/datasets/mini_ade20k.py',
    '../_base_/schedules/mini_2k.py', '../_base_/runtime/mini_seg.py'
]
width = 64
attention = dict(embed_dims=width, num_heads=4)
feed_forward = dict(embed_dims=width, feedforward_channels=4 * width)
position = dict(num_feats=width // 2)
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(arch='pico', drop_path_rate=0.0),
    decode_head=dict(
        in_channels=[32, 64, 128, 256], feat_channels=width, out_channels=width, num_classes=8,
        num_queries=20, positional_encoding=position,
        pixel_decoder=dict(
            encoder=dict(num_layers=2, layer_cfg=dict(
                self_attn_cfg=attention, ffn_cfg=feed_forward)),
            positional_encoding=position),
        transformer_decoder=dict(num_layers=3, layer_cfg=dict(
            self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=feed_forward)),
        loss_cls=dict(class_weight=[1.0] * 8 + [0.1]),
        train_cfg=dict(num_points=1024)))
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=0.1))
auto_scale_lr = dict(base_batch_size=8)
