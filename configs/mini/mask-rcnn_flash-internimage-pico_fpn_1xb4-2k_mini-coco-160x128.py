"""Mask R-CNN, FlashInternImage-pico, 2,000 iterations on the mini COCO set: what quickstart trains.

Gates (``make learn``): bbox mAP50 >= 0.75, segm mAP50 >= 0.70.
"""
_base_ = [
    '../_base_/models/mask-rcnn_flash-internimage_fpn.py', '../_base_/datasets/mini_coco.py',
    '../_base_/schedules/mini_2k.py', '../_base_/runtime/mini_det.py'
]
head_cfg = dict(out_channels=64, roi_layer=dict(sampling_ratio=1))
model = dict(
    backbone=dict(arch='pico', drop_path_rate=0.0),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, num_outs=4),
    rpn_head=dict(in_channels=64, feat_channels=64,
                  anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=head_cfg,
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=8),
        mask_roi_extractor=head_cfg,
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=8)),
    train_cfg=dict(rpn=dict(sampler=dict(num=128)),
                   rpn_proposal=dict(nms_pre=300, max_per_img=150),
                   rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=150)))
