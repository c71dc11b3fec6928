"""UperNet, FlashInternImage-T, 160k iterations.

Published: mIoU 49.3 single scale, 50.3 multi-scale (DCNv4 repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_flash-internimage.py', '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_t_1k_224.pth'
model = dict(backbone=dict(with_cp=True, init_cfg=dict(type='Pretrained', checkpoint=weights)))
