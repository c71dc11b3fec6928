"""UperNet, InternImage-S, 160k iterations on Cityscapes.

Published: mIoU 82.74 single scale, 83.45 multi-scale (InternImage repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_internimage.py', '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_s_1k_224.pth'
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(arch='small', drop_path_rate=0.3,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(in_channels=[80, 160, 320, 640], num_classes=19),
    auxiliary_head=dict(in_channels=320, num_classes=19))
