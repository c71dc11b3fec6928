"""DINO, FlashInternImage-pico, 60 queries, 3,000 iterations on the mini COCO set.

Gate (``make learn``): bbox mAP50 >= 0.55.
"""
_base_ = [
    '../_base_/models/dino-4scale_flash-internimage.py', '../_base_/datasets/mini_coco.py',
    '../_base_/schedules/mini_3k.py', '../_base_/runtime/mini_det.py'
]
width = 128
attention = dict(embed_dims=width, num_heads=4, num_levels=4)
feed_forward = dict(embed_dims=width, feedforward_channels=256)
model = dict(
    num_queries=60,
    backbone=dict(arch='pico', drop_path_rate=0.0),
    neck=dict(in_channels=[64, 128, 256], out_channels=width),
    encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=feed_forward)),
    decoder=dict(
        num_layers=3,
        layer_cfg=dict(self_attn_cfg=dict(embed_dims=width, num_heads=4),
                       cross_attn_cfg=attention, ffn_cfg=feed_forward)),
    positional_encoding=dict(num_feats=width // 2),
    bbox_head=dict(num_classes=8, embed_dims=width),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=40)),
    test_cfg=dict(max_per_img=60))
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]))
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=0.1))
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
