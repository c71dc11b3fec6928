"""Classifier InternImage as fine-tuned from ImageNet-22K: more smoothing, no mixing of images."""
_base_ = './internimage_cls.py'
model = dict(
    backbone=dict(with_cp=True),
    head=dict(loss=dict(label_smooth_val=0.3)),
    train_cfg=dict(_delete_=True))
