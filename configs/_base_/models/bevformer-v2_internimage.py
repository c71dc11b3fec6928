"""BEVFormer v2 with InternImage-B (DCNv3): pictures are RGB, normalised as for its pre-training."""
_base_ = './bevformer-v2_r50.py'
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    img_backbone=dict(
        _delete_=True, type='InternImage', arch='base', drop_path_rate=0.4, with_cp=True,
        out_indices=(1, 2, 3)),
    img_neck=dict(in_channels=[224, 448, 896], init_cfg=dict(
        _delete_=True, type='Xavier', layer='Conv2d', distribution='uniform')))
