"""UperNet, FlashInternImage-S, 160k iterations.

Published: mIoU 50.6 single scale, 51.6 multi-scale (DCNv4 repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_flash-internimage.py', '../_base_/datasets/ade20k_512_by32.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_s_1k_224.pth'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.3, with_cp=True,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(in_channels=[80, 160, 320, 640]),
    auxiliary_head=dict(in_channels=320))
