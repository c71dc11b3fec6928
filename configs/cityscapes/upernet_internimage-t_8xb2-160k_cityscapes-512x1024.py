"""UperNet, InternImage-T, 160k iterations on Cityscapes.

Published: mIoU 82.58 single scale, 83.4 multi-scale (InternImage repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_internimage.py', '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth'
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19))
