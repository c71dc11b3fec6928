"""UperNet, InternImage-L, 160k iterations on Cityscapes after Mapillary Vistas.

Published: mIoU 85.94 single scale, 86.22 multi-scale (InternImage repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_internimage.py', '../_base_/datasets/cityscapes_extra_512x1024.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(arch='large', drop_path_rate=0.4),
    decode_head=dict(in_channels=[160, 320, 640, 1280], num_classes=19),
    auxiliary_head=dict(in_channels=640, num_classes=19))
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    clip_grad=dict(max_norm=0.1),
    paramwise_cfg=dict(layer_decay_rate=0.94))
train_cfg = dict(val_interval=4000)
load_from = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
             'upernet_internimage_l_512x1024_80k_mapillary.pth')
