"""nuScenes at one size, 640x1600, neither mirrored nor with BEV augmentation."""
_base_ = './nuscenes_bevformer-v2.py'
train_pipeline = [
    dict(type='LoadMultiFrameImages'),
    dict(type='DistortViews', brightness_delta=32, contrast_range=(0.5, 1.5),
         saturation_range=(0.5, 1.5), hue_delta=18),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range={{_base_.point_cloud_range}}),
    dict(type='ObjectNameFilter', classes={{_base_.classes}}),
    dict(type='AugmentViews', crop={{_base_.crop}}, heights=[640], flip=0.0, pad_divisor=32,
         pad_value={{_base_.mean}}),
    dict(type='PerspectiveTargets', min_points=3, min_visibility=0.2),
    dict(type='PackTemporalInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
