"""UperNet, InternImage-B, 160k iterations on Cityscapes.

Published: mIoU 83.18 single scale, 83.97 multi-scale (InternImage repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_internimage.py', '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_b_1k_224.pth'
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(arch='base', drop_path_rate=0.4,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(in_channels=[112, 224, 448, 896], num_classes=19),
    auxiliary_head=dict(in_channels=448, num_classes=19))
