"""SegFormer head, InternImage-L, 160k iterations on Cityscapes after Mapillary Vistas.

Published: mIoU 85.16 single scale, 85.67 multi-scale (InternImage repository, segmentation table).
"""
_base_ = [
    '../_base_/models/segformer_internimage.py', '../_base_/datasets/cityscapes_extra_512x1024.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    clip_grad=dict(max_norm=0.1),
    paramwise_cfg=dict(layer_decay_rate=0.94))
train_cfg = dict(val_interval=4000)
load_from = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
             'segformer_internimage_l_512x1024_80k_mapillary.pth')
