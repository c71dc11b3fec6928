"""PASCAL VOC 2007 and 2012 together, three times an epoch; tested on VOC 2007 at (2000, 1000).

Training pictures have the fixed scale (1000, 600): the published files name (2000, 600) to
(2000, 1200), but where mmdet 2 does not read it. Small objects count, as they do in mmdet 2;
mmdet 3's base leaves out those under 32 px.
"""
_base_ = 'mmdet::_base_/datasets/voc0712.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(1000, 600), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2000, 1000), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
years = [dict(type='VOCDataset', data_root='data/VOCdevkit/',
              ann_file=f'VOC{year}/ImageSets/Main/trainval.txt',
              data_prefix=dict(sub_data_root=f'VOC{year}/'),
              filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=train_pipeline)
         for year in (2007, 2012)]
train_dataloader = dict(batch_size=1, dataset=dict(dataset=dict(datasets=years)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
