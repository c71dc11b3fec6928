"""UperNet, InternImage-H, 160k iterations.

Published: mIoU 59.9 single scale, 60.3 multi-scale (InternImage repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_internimage.py', '../_base_/datasets/ade20k_896_by32.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
weights = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
           'internimage_h_jointto22k_384.pth')
model = dict(
    data_preprocessor=dict(size=(896, 896)),
    backbone=dict(arch='huge', drop_path_rate=0.5,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(in_channels=[320, 640, 1280, 2560]),
    auxiliary_head=dict(in_channels=1280))
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    clip_grad=dict(max_norm=0.1),
    paramwise_cfg=dict(layer_decay_rate=0.95))
