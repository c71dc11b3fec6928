"""Mask2Former, InternImage-H, 80k iterations on Mapillary Vistas with Cityscapes' classes.

No result is published (configs of the InternImage repository).
"""
_base_ = [
    '../_base_/models/mask2former_internimage.py', '../_base_/datasets/mapillary_896x896_by32.py',
    '../_base_/schedules/mask2former_80k.py', '../_base_/runtime/seg.py'
]
weights = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
           'internimage_h_jointto22k_384.pth')
model = dict(
    data_preprocessor=dict(size=(896, 896)),
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(num_classes=19, loss_cls=dict(class_weight=[1.0] * 19 + [0.1])),
    test_cfg=dict(mode='slide', crop_size=(896, 896), stride=(512, 512)))
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    clip_grad=dict(max_norm=0.1),
    paramwise_cfg=dict(layer_decay_rate=0.95))
train_cfg = dict(val_interval=2000)
auto_scale_lr = dict(base_batch_size=32)
