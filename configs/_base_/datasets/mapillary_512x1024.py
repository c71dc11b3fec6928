"""Mapillary Vistas with the labels of Cityscapes, tested on Cityscapes (docs/data.md)."""
_base_ = './cityscapes_512x1024.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 1.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 1024), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=[
    dict(type='MapillaryAsCityscapes', data_root='data/mapillary/', pipeline=train_pipeline,
         data_prefix=dict(img_path=f'{part}/images', seg_map_path=f'{part}/v1.2/labels'))
    for part in ('training', 'validation')]))
