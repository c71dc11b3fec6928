"""ImageNet at 224 as InternImage uses it: val images are scaled to the crop, none is cut off."""
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
