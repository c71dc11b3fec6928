"""The mini nuScenes set (tools/make_mini_data.py --sets nuscenes), tested on its training scenes.

Pictures are a quarter of the published size, neither mirrored nor turned: its 48 training samples
are to be learnt by heart.
"""
_base_ = './nuscenes_bevformer-v2.py'
data_root = 'data/mini/nuscenes/'
train_infos = 'nuscenes_infos_temporal_train.pkl'
views = dict(type='AugmentViews', crop=(0, 260, 1600, 900), heights=[160], flip=0.0, pad_divisor=32,
             pad_value={{_base_.mean}})
train_pipeline = [
    dict(type='LoadMultiFrameImages'),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range={{_base_.point_cloud_range}}),
    dict(type='ObjectNameFilter', classes={{_base_.classes}}),
    views,
    dict(type='PerspectiveTargets', min_points=3, min_visibility=0.2),
    dict(type='PackTemporalInputs'),
]
test_pipeline = [dict(type='LoadMultiFrameImages'), views, dict(type='PackTemporalInputs')]
train_dataloader = dict(
    batch_size=2, num_workers=1, sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=1, dataset=dict(
        data_root=data_root, ann_file=train_infos, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='NuScenesSplitMetric', data_root=data_root,
    ann_file=data_root + train_infos, metric='bbox', eval_set='mini_train',
    modality=dict(use_camera=True, use_lidar=False))
test_evaluator = val_evaluator
