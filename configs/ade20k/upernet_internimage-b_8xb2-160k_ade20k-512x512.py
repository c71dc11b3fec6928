"""UperNet, InternImage-B, 160k iterations.

Published: mIoU 50.8 single scale, 51.3 multi-scale (InternImage repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_internimage.py', '../_base_/datasets/ade20k_512_by32.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_b_1k_224.pth'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.4,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(in_channels=[112, 224, 448, 896]),
    auxiliary_head=dict(in_channels=448))
