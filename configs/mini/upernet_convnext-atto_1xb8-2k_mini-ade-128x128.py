"""UperNet, ConvNeXt-Atto, 2,000 iterations on the mini ADE20K set.

Initial weights as in the classifier's config beside it. With the depths and widths of
InternImage-pico it does not reach the gate.
Gate (``make learn``): mIoU >= 50.
"""
_base_ = './upernet_flash-internimage-pico_1xb16-2k_mini-ade-128x128.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.ConvNeXt', arch='atto', out_indices=[0, 1, 2, 3],
        layer_scale_init_value=1.0, gap_before_final_norm=False,
        init_cfg=dict(type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in',
                      nonlinearity='linear')),
    decode_head=dict(in_channels=[40, 80, 160, 320]),
    auxiliary_head=dict(in_channels=160))
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=8)
