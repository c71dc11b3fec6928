"""UperNet, FlashInternImage-L, 160k iterations.

Published: mIoU 55.6 single scale, 56.0 multi-scale (DCNv4 repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_flash-internimage.py', '../_base_/datasets/ade20k_640_by32.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_l_22k_384.pth'
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(arch='large', drop_path_rate=0.4,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(in_channels=[160, 320, 640, 1280]),
    auxiliary_head=dict(in_channels=640))
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    clip_grad=dict(max_norm=0.1),
    paramwise_cfg=dict(layer_decay_rate=0.94))
