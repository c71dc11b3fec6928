"""Cityscapes' fine training set and its 20,000 further pictures (docs/data.md), as published."""
_base_ = './cityscapes_512x1024.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 1024), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=[
    dict(type='CityscapesDataset', data_root='data/cityscapes/', pipeline=train_pipeline,
         data_prefix=dict(img_path=pictures, seg_map_path=labels))
    for pictures, labels in (
        ('leftImg8bit/train', 'gtFine/train'),
        ('leftImg8bit/train_extra', 'refinement_final/train_extra'))]))
