"""UperNet, ConvNeXt with the depths and widths of InternImage-pico, 2,000 iterations.

Initial weights as in the classifier's config beside it.
Gate (``make learn``): mIoU >= 50.
"""
_base_ = './upernet_flash-internimage-pico_1xb16-2k_mini-ade-128x128.py'
model = dict(backbone=dict(
    _delete_=True, type='mmpretrain.ConvNeXt',
    arch=dict(depths=[1, 1, 2, 1], channels=[32, 64, 128, 256]), out_indices=[0, 1, 2, 3],
    layer_scale_init_value=1.0, gap_before_final_norm=False,
    init_cfg=dict(type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in',
                  nonlinearity='linear')))
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=8)
