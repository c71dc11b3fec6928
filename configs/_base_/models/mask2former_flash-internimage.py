"""Mask2Former with FlashInternImage-T (DCNv4): 256 channels, 100 queries, 150 classes."""
num_classes, width = 150, 256
attention = dict(embed_dims=width, num_heads=8, dropout=0.0, batch_first=True)
encoder_layer = dict(
    self_attn_cfg=dict(num_levels=3, num_points=4, **attention),
    ffn_cfg=dict(embed_dims=width, feedforward_channels=1024, ffn_drop=0.0))
decoder_layer = dict(
    self_attn_cfg=attention, cross_attn_cfg=attention,
    ffn_cfg=dict(embed_dims=width, feedforward_channels=2048, ffn_drop=0.0))
position = dict(num_feats=width // 2, normalize=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(512, 512)),
    backbone=dict(type='FlashInternImage', arch='tiny', drop_path_rate=0.2),
    decode_head=dict(
        type='LateUpsampleMask2FormerHead', in_channels=[64, 128, 256, 512], feat_channels=width,
        out_channels=width, num_classes=num_classes, num_queries=100,
        num_transformer_feat_level=3,
        pixel_decoder=dict(
            type='mmdet.MSDeformAttnPixelDecoder', num_outs=3,
            norm_cfg=dict(type='GN', num_groups=32), act_cfg=dict(type='ReLU'),
            encoder=dict(num_layers=6, layer_cfg=encoder_layer), positional_encoding=position),
        enforce_decoder_input_project=False, positional_encoding=position,
        transformer_decoder=dict(
            return_intermediate=True, num_layers=9, layer_cfg=decoder_layer),
        loss_cls=dict(type='mmdet.CrossEntropyLoss', loss_weight=2.0,
                      class_weight=[1.0] * num_classes + [0.1]),
        loss_mask=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0, loss_weight=5.0),
        train_cfg=dict(
            num_points=12544, oversample_ratio=3.0, importance_sample_ratio=0.75,
            assigner=dict(type='mmdet.HungarianAssigner', match_costs=[
                dict(type='mmdet.ClassificationCost', weight=2.0),
                dict(type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
                dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0)]),
            sampler=dict(type='mmdet.MaskPseudoSampler'))),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
