"""The mini COCO set (tools/make_mini_data.py): 8 classes, 160x128 px; digits are not mirrored."""
_base_ = 'mmdet::_base_/datasets/coco_instance.py'
data_root = 'data/mini/coco/'
metainfo = dict(
    classes=('circle', 'digit_2', 'digit_4', 'digit_6', 'ring', 'square', 'star', 'triangle'),
    palette=[(230, 60, 60), (60, 140, 255), (250, 200, 40), (60, 200, 90), (200, 80, 230),
             (255, 130, 40), (40, 215, 215), (240, 120, 180)])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4, num_workers=1,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline,
                 filter_cfg=dict(filter_empty_gt=False, min_size=8)))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
