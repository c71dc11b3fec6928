"""UperNet, FlashInternImage-B, 160k iterations.

Published: mIoU 52.0 single scale, 52.6 multi-scale (DCNv4 repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_flash-internimage.py', '../_base_/datasets/ade20k_512_by32.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_b_1k_224.pth'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.3,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(in_channels=[112, 224, 448, 896]),
    auxiliary_head=dict(in_channels=448))
