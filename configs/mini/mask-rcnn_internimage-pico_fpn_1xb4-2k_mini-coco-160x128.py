"""Mask R-CNN, InternImage-pico (DCNv3), 2,000 iterations on the mini COCO set.

From random weights an FPN without norm does not learn in this time, so FlashInternImage's stays.
Gate (``make learn``): bbox mAP50 >= 0.75.
"""
_base_ = './mask-rcnn_flash-internimage-pico_fpn_1xb4-2k_mini-coco-160x128.py'
model = dict(backbone=dict(_delete_=True, type='InternImage', arch='pico'))
