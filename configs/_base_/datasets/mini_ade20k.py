"""The mini ADE20K set (tools/make_mini_data.py): 8 classes, label 0 on disk is void."""
_base_ = 'mmseg::_base_/datasets/ade20k.py'
data_root = 'data/mini/ade'
metainfo = dict(
    classes=('background', 'circle', 'digit_2', 'digit_4', 'ring', 'square', 'star', 'triangle'),
    palette=[(110, 110, 110), (230, 60, 60), (60, 140, 255), (250, 200, 40), (60, 200, 90),
             (200, 80, 230), (255, 130, 40), (40, 215, 215)])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(160, 128), ratio_range=(0.9, 1.3), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(128, 128), cat_max_ratio=0.97),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=(side * 5 // 4, side), keep_ratio=True)
         for side in (116, 128, 144, 160)],  # within what the training sees
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations', reduce_zero_label=True)],
        [dict(type='PackSegInputs')],
    ]),
]
train_dataloader = dict(
    batch_size=8, num_workers=1,
    dataset=dict(type='BaseSegDataset', reduce_zero_label=True, data_root=data_root,
                 metainfo=metainfo, pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(type='BaseSegDataset', reduce_zero_label=True, data_root=data_root,
                 metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
