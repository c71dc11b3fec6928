"""nuScenes as BEVFormer v2 is trained: random sizes, mirrored pictures and BEV augmentation.

The info files are temporal ones (``docs/bevformer_v2.md``). In training the lower 640 of 900 rows
are resized to a height of 512 to 768, tested at 640.
"""
data_root = 'data/nuscenes/'
train_infos = 'nuscenes_infos_temporal_train.pkl'
val_infos = 'nuscenes_infos_temporal_val.pkl'
point_cloud_range = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
classes = ['barrier', 'bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle', 'pedestrian',
           'traffic_cone', 'trailer', 'truck']
crop = (0, 260, 1600, 900)
mean = (103.53, 116.28, 123.675)
train_pipeline = [
    dict(type='LoadMultiFrameImages'),
    dict(type='DistortViews', brightness_delta=32, contrast_range=(0.5, 1.5),
         saturation_range=(0.5, 1.5), hue_delta=18),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='AugmentBEV', rotation=(-22.5, 22.5), scale=(0.95, 1.05), flip_x=0.5, flip_y=0.5),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes=classes),
    dict(type='AugmentViews', crop=crop, heights=[512, 544, 576, 608, 640, 672, 704, 736, 768],
         flip=0.5, pad_divisor=32, pad_value=mean),
    dict(type='PerspectiveTargets', min_points=3, min_visibility=0.2),
    dict(type='PackTemporalInputs'),
]
test_pipeline = [
    dict(type='LoadMultiFrameImages'),
    dict(type='AugmentViews', crop=crop, heights=[640], flip=0.0, pad_divisor=32, pad_value=mean),
    dict(type='PackTemporalInputs'),
]
dataset = dict(
    type='TemporalNuScenesDataset', data_root=data_root, metainfo=dict(classes=classes),
    frames=(0, ))
train_dataloader = dict(
    batch_size=1, num_workers=4, persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file=train_infos, pipeline=train_pipeline, use_valid_flag=True, **dataset))
val_dataloader = dict(
    batch_size=1, num_workers=4, persistent_workers=True, drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file=val_infos, pipeline=test_pipeline, test_mode=True, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='NuScenesMetric', data_root=data_root, ann_file=data_root + val_infos, metric='bbox',
    modality=dict(use_camera=True, use_lidar=False))
test_evaluator = val_evaluator
