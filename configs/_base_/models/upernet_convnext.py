"""UperNet with ConvNeXt-T (mmpretrain's class), 150 classes.

Single-scale results are of windows of a crop's size at two thirds of its side. Those of many scales
are of whole pictures: ``tools/test.py --tta --cfg-options model.test_cfg.mode=whole``.
"""
_base_ = './upernet_flash-internimage.py'
model = dict(
    backbone=dict(_delete_=True, type='mmpretrain.ConvNeXt', arch='tiny', drop_path_rate=0.4,
                  out_indices=[0, 1, 2, 3], layer_scale_init_value=1.0,
                  gap_before_final_norm=False),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
