"""Mask R-CNN, plain ViT-B, 100 epochs with large-scale jitter.

Published from MAE weights: box AP 50.3, mask AP 44.9 (arXiv:2111.06377, table 4; best of several
lengths). Convert these weights (tools/convert_checkpoint.py) and train with ``--cfg-options
model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE``.
"""
_base_ = [
    '../_base_/models/mask-rcnn_plain-vit_fpn.py', '../_base_/datasets/coco_lsj_1024.py',
    '../_base_/schedules/det_vit_100e.py', '../_base_/runtime/det.py'
]
