"""Mask2Former, InternImage-H, 80k iterations on ADE20K after COCO-Stuff 164k.

Published: mIoU 62.6 single scale, 62.9 multi-scale (InternImage repository, segmentation table).
"""
_base_ = [
    '../_base_/models/mask2former-wide_internimage.py', '../_base_/datasets/ade20k_896_by32.py',
    '../_base_/schedules/mask2former_80k.py', '../_base_/runtime/seg.py'
]
model = dict(data_preprocessor=dict(size=(896, 896)))
optim_wrapper = dict(
    optimizer=dict(lr=1e-5),
    clip_grad=dict(max_norm=0.1),
    paramwise_cfg=dict(layer_decay_rate=0.95))
train_cfg = dict(val_interval=2000)
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=(4 * side, side), keep_ratio=True)
         for side in (768, 832, 896, 960, 1024)],
        [dict(type='ResizeToMultiple', size_divisor=32)],
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')],
    ]),
]
load_from = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
             'mask2former_internimage_h_896_80k_cocostuff164k.pth')
