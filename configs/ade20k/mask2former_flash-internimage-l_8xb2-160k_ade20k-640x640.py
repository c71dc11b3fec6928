"""Mask2Former, FlashInternImage-L, 160k iterations.

Published: mIoU 56.7 single scale (DCNv4 repository, segmentation table).
"""
_base_ = [
    '../_base_/models/mask2former_flash-internimage.py', '../_base_/datasets/ade20k_640_by32.py',
    '../_base_/schedules/mask2former_160k.py', '../_base_/runtime/seg.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_l_22k_384.pth'
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(arch='large', drop_path_rate=0.5, with_cp=True,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(
        in_channels=[160, 320, 640, 1280], num_queries=200,
        pixel_decoder=dict(encoder=dict(layer_cfg=dict(
            ffn_cfg=dict(feedforward_channels=2048))))))
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    clip_grad=dict(max_norm=0.1),
    paramwise_cfg=dict(layer_decay_rate=0.94))
train_cfg = dict(val_interval=2000)
