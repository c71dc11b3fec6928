"""PASCAL VOC 2007 and 2012 together, three times an epoch; tested on VOC 2007 at (2000, 1000).

Training pictures have the fixed scale (1000, 600) of mmdet's base: the published files name
(2000, 600) to (2000, 1200), but where mmdet 2 does not read it.
"""
_base_ = 'mmdet::_base_/datasets/voc0712.py'
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2000, 1000), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(batch_size=1)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
