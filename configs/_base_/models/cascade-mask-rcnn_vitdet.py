"""Cascade Mask R-CNN with ViTDet-B (arXiv:2203.16527): one box for all classes, L1 loss.

detectron2 adds the losses of the three stages and passes a third of their gradient on to the
pyramid. A third of each loss does the same there, and AdamW ignores the scale of a head's loss.
"""
_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'
norm_cfg = dict(type='mmpretrain.LN2d', eps=1e-6)
model = dict(
    data_preprocessor=dict(type='FixedSizeDetDataPreprocessor', pad_size=(1024, 1024)),
    backbone=dict(_delete_=True, type='PlainViT', arch='base', out_type='last',
                  rel_pos='decomposed', drop_path_rate=0.1),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=768),
    rpn_head=dict(num_convs=2, loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0)),
    roi_head=dict(
        stage_loss_weights=[1 / 3, 1 / 3, 1 / 3],
        bbox_head=[
            dict(
                type='Shared4Conv1FCBBoxHead', in_channels=256, conv_out_channels=256,
                fc_out_channels=1024, roi_feat_size=7, num_classes=80, reg_class_agnostic=True,
                norm_cfg=norm_cfg,
                bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0., 0., 0., 0.],
                                target_stds=[1 / w, 1 / w, 2 / w, 2 / w]),
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='L1Loss', loss_weight=1.0))
            for w in (10, 20, 30)
        ],
        mask_head=dict(norm_cfg=norm_cfg)),
    train_cfg=dict(rpn=dict(allowed_border=-1), rpn_proposal=dict(max_per_img=1000)))
