"""Mask R-CNN, ConvNeXt-Atto, 2,000 iterations on the mini COCO set.

The FPN keeps FlashInternImage's norm, as in the config of InternImage-pico beside it. ConvNeXt's
own initial weights (0.02) start its blocks near zero, from where they do not get far in so short a
training; these keep the scale of their input.
Gate (``make learn``): bbox mAP50 >= 0.75.
"""
_base_ = './mask-rcnn_flash-internimage-pico_fpn_1xb4-2k_mini-coco-160x128.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.ConvNeXt', arch='atto', out_indices=[0, 1, 2, 3],
        layer_scale_init_value=1.0, gap_before_final_norm=False,
        init_cfg=dict(type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in',
                      nonlinearity='linear')),
    neck=dict(in_channels=[40, 80, 160, 320]))
