"""Cascade Mask R-CNN, FlashInternImage-pico, 2,000 iterations on the mini COCO set.

Gate (``make learn``): bbox mAP50 >= 0.75.
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_flash-internimage_fpn.py',
    '../_base_/datasets/mini_coco.py', '../_base_/schedules/mini_2k.py',
    '../_base_/runtime/mini_det.py'
]
target_stds = [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
roi_cfg = dict(out_channels=64, roi_layer=dict(sampling_ratio=1))
model = dict(
    backbone=dict(arch='pico', drop_path_rate=0.0),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, num_outs=4),
    rpn_head=dict(in_channels=64, feat_channels=64,
                  anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=roi_cfg,
        bbox_head=[dict(
            type='Shared4Conv1FCBBoxHead', in_channels=64, conv_out_channels=32,
            fc_out_channels=256, num_classes=8, reg_decoded_bbox=True, norm_cfg=dict(type='BN'),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=stds),
            loss_bbox=dict(type='GIoULoss', loss_weight=10.0)) for stds in target_stds],
        mask_roi_extractor=roi_cfg,
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=8)),
    train_cfg=dict(rpn=dict(sampler=dict(num=128)),
                   rpn_proposal=dict(nms_pre=300, max_per_img=150),
                   rcnn=[dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=iou, neg_iou_thr=iou,
                                            min_pos_iou=iou, match_low_quality=False),
                              sampler=dict(type='RandomSampler', num=48, pos_fraction=0.25),
                              mask_size=28, pos_weight=-1, debug=False)
                         for iou in (0.5, 0.6, 0.7)]),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=150)))
