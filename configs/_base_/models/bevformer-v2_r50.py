"""BEVFormer v2 with ResNet-50, the current frame alone; settings of the release.

Published trainings start from an FCOS detector on COCO, which is shared as
``fcos_r50_coco_2mmdet.pth`` from the BEVFormer repository; put it below ``data/weights``. Any other
detector of mmdet with ``ResNet`` (caffe) and this FPN does as well: name its file as ``checkpoint``
and ``backbone.`` and ``neck.`` as prefixes.

Batch norms are synchronised by the runner (``sync_bn`` of the schedule), as published.
"""
weights = 'data/weights/fcos_r50_coco_2mmdet.pth'
model = dict(
    type='BEVFormerV2',
    frames=(0, ),
    num_mono_levels=5,
    mono_loss_weight=1.0,
    grid_mask=dict(prob=0.7, ratio=0.5),
    data_preprocessor=dict(
        type='Det3DDataPreprocessor', mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False, pad_size_divisor=32),
    img_backbone=dict(
        type='mmdet.ResNet', depth=50, num_stages=4, out_indices=(1, 2, 3), frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False, style='caffe',
        init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='img_backbone.')),
    img_neck=dict(
        type='mmdet.FPN', in_channels=[512, 1024, 2048], out_channels=256, start_level=0,
        add_extra_convs='on_output', num_outs=5, relu_before_extra_convs=True,
        init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='img_neck.')),
    pts_bbox_head=dict(
        type='BEVFormerHead', num_classes=10, num_query=900, num_groups=11, bev_h=200, bev_w=200,
        embed_dims=256, pc_range=[-51.2, -51.2, -5.0, 51.2, 51.2, 3.0],
        post_center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0], max_num=300,
        loss_cls_weight=2.0, loss_bbox_weight=0.75, code_weights=[1.0] * 8 + [0.2] * 2,
        matcher=dict(type='HungarianMatcher3D', cls_weight=2.0, box_weight=0.75, code_entries=8),
        transformer=dict(
            type='PerceptionTransformerV2', num_cams=6, num_feature_levels=4,
            encoder=dict(
                type='BEVFormerEncoder', num_layers=6, num_heads=8, num_points=8, num_heights=4,
                feedforward_channels=512, dropout=0.1),
            decoder=dict(
                type='BEVFormerDecoder', num_layers=6, num_heads=8, num_points=4,
                feedforward_channels=512, dropout=0.1))),
    fcos3d_bbox_head=dict(
        type='PerspectiveHead', in_channels=256, strides=(8, 16, 32, 64, 128), num_convs=4,
        norm_cfg=dict(type='BN')))
