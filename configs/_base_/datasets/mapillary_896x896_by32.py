"""mapillary_512x1024 in crops of 896x896, tested as cityscapes_extra_1024x1024_by32."""
_base_ = './cityscapes_extra_1024x1024_by32.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(896, 896), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=[
    dict(type='MapillaryAsCityscapes', data_root='data/mapillary/', pipeline=train_pipeline,
         data_prefix=dict(img_path=f'{part}/images', seg_map_path=f'{part}/v1.2/labels'))
    for part in ('training', 'validation')]))
