"""DINO on the composite InternImage-pico, as the mini DINO beside it.

Gate (``make learn``): bbox mAP50 >= 0.55. Its control freezes the backbone:
``model.backbone.frozen_patterns=['.']``.
"""
_base_ = './dino-4scale_flash-internimage-pico_1xb4-3k_mini-coco-160x128.py'
model = dict(
    type='CompositeDINO', aux_weight=0.5,
    backbone=dict(_delete_=True, type='CompositeInternImage', arch='pico', out_indices=(1, 2, 3)))
