"""Cascade Mask R-CNN as ConvNeXt and InternImage train it: mmdet's with stronger box heads.

Each of the three box heads has four convolutions with SyncBN and one linear layer, regresses one
box per class and is trained with GIoU on decoded boxes.
"""
_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'
target_stds = [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
model = dict(roi_head=dict(bbox_head=[
    dict(
        type='Shared4Conv1FCBBoxHead', in_channels=256, conv_out_channels=256,
        fc_out_channels=1024, roi_feat_size=7, num_classes=80, reg_class_agnostic=False,
        reg_decoded_bbox=True, norm_cfg=dict(type='SyncBN', requires_grad=True),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0., 0., 0., 0.],
                        target_stds=stds),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=10.0))
    for stds in target_stds
]))
