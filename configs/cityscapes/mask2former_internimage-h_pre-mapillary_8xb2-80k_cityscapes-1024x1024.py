"""Mask2Former, InternImage-H, 80k iterations on Cityscapes after Mapillary Vistas.

Published: mIoU 86.37 single scale, 86.96 multi-scale (InternImage repository, segmentation table).
"""
_base_ = [
    '../_base_/models/mask2former_internimage.py',
    '../_base_/datasets/cityscapes_extra_1024x1024_by32.py',
    '../_base_/schedules/mask2former_80k.py', '../_base_/runtime/seg.py'
]
model = dict(
    data_preprocessor=dict(size=(1024, 1024)),
    decode_head=dict(num_classes=19, loss_cls=dict(class_weight=[1.0] * 19 + [0.1])),
    test_cfg=dict(mode='slide', crop_size=(1024, 1024), stride=(512, 512)))
optim_wrapper = dict(
    optimizer=dict(lr=1e-5),
    clip_grad=dict(max_norm=0.1),
    paramwise_cfg=dict(layer_decay_rate=0.95))
train_cfg = dict(val_interval=2000)
load_from = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
             'mask2former_internimage_h_896x896_80k_mapillary.pth')
