"""UperNet, InternImage-L, 80k iterations on Mapillary Vistas with Cityscapes' classes.

No result is published (configs of the InternImage repository).
"""
_base_ = [
    '../_base_/models/upernet_internimage.py', '../_base_/datasets/mapillary_512x1024.py',
    '../_base_/schedules/seg_80k.py', '../_base_/runtime/seg.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_l_22k_192to384.pth'
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(arch='large', drop_path_rate=0.4,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(in_channels=[160, 320, 640, 1280], num_classes=19),
    auxiliary_head=dict(in_channels=640, num_classes=19))
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    clip_grad=dict(max_norm=0.1),
    paramwise_cfg=dict(layer_decay_rate=0.94))
