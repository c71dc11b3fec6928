"""CrowdHuman: full bodies of persons, read from the published ``.odgt`` files, at COCO's scales.

mmdet has the data set as part of a whole recipe only. Training uses DETR's augmentation as COCO's
3x schedules do. Evaluated as the paper of CrowdHuman does: average precision, miss rate and Jaccard
index.
"""
data_root = 'data/CrowdHuman/'
scales = [(size, 1333) for size in range(480, 801, 32)]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoice', transforms=[
        [dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)],
        [dict(type='RandomChoiceResize', keep_ratio=True,
              scales=[(400, 1333), (500, 1333), (600, 1333)]),
         dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600),
              allow_negative_crop=True),
         dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)],
    ]),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=2, num_workers=2, persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='CrowdHumanDataset', data_root=data_root, ann_file='annotation_train.odgt',
        data_prefix=dict(img='Images/'), filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=2, persistent_workers=True, drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CrowdHumanDataset', data_root=data_root, ann_file='annotation_val.odgt',
        data_prefix=dict(img='Images/'), test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CrowdHumanMetric', ann_file=data_root + 'annotation_val.odgt', metric=['AP', 'MR', 'JI'])
test_evaluator = val_evaluator
