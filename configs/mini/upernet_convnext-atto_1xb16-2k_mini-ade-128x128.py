"""UperNet, ConvNeXt-Atto, 2,000 iterations on the mini ADE20K set.

Initial weights as in the detector's config beside it.
Gate (``make learn``): mIoU >= 50.
"""
_base_ = './upernet_flash-internimage-pico_1xb16-2k_mini-ade-128x128.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.ConvNeXt', arch='atto', out_indices=[0, 1, 2, 3],
        layer_scale_init_value=1.0, gap_before_final_norm=False,
        init_cfg=dict(type='Kaiming', layer='Conv2d')),
    decode_head=dict(in_channels=[40, 80, 160, 320]),
    auxiliary_head=dict(in_channels=160))
