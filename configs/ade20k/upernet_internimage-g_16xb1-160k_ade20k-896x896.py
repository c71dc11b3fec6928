"""UperNet, InternImage-G, 160k iterations.

No result is published (configs of the InternImage repository).
"""
_base_ = [
    '../_base_/models/upernet_internimage.py', '../_base_/datasets/ade20k_896_by32.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
weights = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
           'internimage_g_pretrainto22k_384.pth')
model = dict(
    data_preprocessor=dict(size=(896, 896)),
    backbone=dict(arch='giant', drop_path_rate=0.5, with_cp=True,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(in_channels=[512, 1024, 2048, 4096]),
    auxiliary_head=dict(in_channels=2048))
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    clip_grad=dict(max_norm=0.1),
    paramwise_cfg=dict(layer_decay_rate=0.95))
