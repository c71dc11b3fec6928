"""Mask R-CNN, plain ViT-pico with patches of 8 pixels, 2,000 iterations on the mini COCO set.

Windows of 7 tokens pad the 20x20 map, as 14 pads the 64x64 map of the big systems.
Gate (``make learn``): bbox mAP50 >= 0.75.
"""
_base_ = [
    '../_base_/models/mask-rcnn_plain-vit_fpn.py', '../_base_/datasets/mini_coco.py',
    '../_base_/schedules/mini_2k.py', '../_base_/runtime/mini_det.py'
]
norm_cfg = dict(type='BN', requires_grad=True)  # SyncBN needs a process group
strides = [2, 4, 8, 16]
roi_cfg = dict(out_channels=32, featmap_strides=strides, finest_scale=28,
               roi_layer=dict(sampling_ratio=1))
model = dict(
    data_preprocessor=dict(pad_size=(160, 160)),
    backbone=dict(arch='pico', patch_size=8, window_size=7, image_size=160,
                  pretrain_image_size=160, drop_path_rate=0.0),
    neck=dict(in_channels=[64, 64, 64, 64], out_channels=32, num_outs=4, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=32, feat_channels=32, anchor_generator=dict(strides=strides)),
    roi_head=dict(
        bbox_roi_extractor=roi_cfg,
        bbox_head=dict(in_channels=32, conv_out_channels=32, fc_out_channels=256, num_classes=8,
                       norm_cfg=norm_cfg),
        mask_roi_extractor=roi_cfg,
        mask_head=dict(num_convs=2, in_channels=32, conv_out_channels=64, num_classes=8,
                       norm_cfg=norm_cfg)),
    train_cfg=dict(rpn=dict(sampler=dict(num=128)),
                   rpn_proposal=dict(nms_pre=300, max_per_img=150),
                   rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=150)))
