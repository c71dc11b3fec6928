"""Mask2Former, FlashInternImage-B, 160k iterations.

Published: mIoU 53.4 single scale (DCNv4 repository, segmentation table).
"""
_base_ = [
    '../_base_/models/mask2former_flash-internimage.py', '../_base_/datasets/ade20k_640_by32.py',
    '../_base_/schedules/mask2former_160k.py', '../_base_/runtime/seg.py'
]
weights = 'https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_b_1k_224.pth'
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(arch='base', drop_path_rate=0.4,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(
        in_channels=[112, 224, 448, 896], num_queries=200,
        pixel_decoder=dict(encoder=dict(layer_cfg=dict(
            ffn_cfg=dict(feedforward_channels=2048))))))
optim_wrapper = dict(optimizer=dict(lr=1e-4), clip_grad=dict(max_norm=0.1))
train_cfg = dict(val_interval=5000)
