"""Classifier InternImage-H (DCNv3), whose last two maps are pooled by attention."""
_base_ = './internimage_cls_finetune.py'
model = dict(
    backbone=dict(arch='huge', out_indices=(2, 3)),
    neck=dict(_delete_=True, type='InternImageClipNeck', in_channels=(1280, 2560)),
    head=dict(in_channels=768))
