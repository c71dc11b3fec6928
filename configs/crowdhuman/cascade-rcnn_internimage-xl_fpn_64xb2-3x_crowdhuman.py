"""Cascade R-CNN, InternImage-XL, 3x on CrowdHuman: one class, no masks.

No result is published ("TBD" in the InternImage repository).

Up to 100 persons are found in a picture, as published; CrowdHuman has crowds of more. The published
training read a conversion to COCO's format that holds the same boxes; mmdet reads the original.
"""
_base_ = [
    'mmdet::_base_/models/cascade-rcnn_r50_fpn.py', '../_base_/datasets/crowdhuman.py',
    '../_base_/schedules/det_3x.py', '../_base_/runtime/det.py'
]
weights = ('https://github.com/OpenGVLab/InternImage/releases/download/cls_model/'
           'internimage_xl_22k_192to384.pth')
box_heads = [
    dict(type='Shared2FCBBoxHead', in_channels=256, fc_out_channels=1024, roi_feat_size=7,
         num_classes=1, reg_class_agnostic=True,
         bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0., 0., 0., 0.],
                         target_stds=stds),
         loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
         loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0))
    for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])]
model = dict(
    backbone=dict(_delete_=True, type='InternImage', arch='xlarge', drop_path_rate=0.4,
                  init_cfg=dict(type='Pretrained', checkpoint=weights)),
    neck=dict(in_channels=[192, 384, 768, 1536]),
    roi_head=dict(bbox_head=box_heads))
optim_wrapper = dict(
    optimizer=dict(weight_decay=1e-4), paramwise_cfg=dict(layer_decay_rate=0.94))
auto_scale_lr = dict(base_batch_size=128)
