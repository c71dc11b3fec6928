"""Classifier: a step of the path from ResNet-50 to ConvNeXt-T, linear head."""
_base_ = 'mmpretrain::_base_/models/convnext/convnext-base.py'
model = dict(
    backbone=dict(_delete_=True, type='RoadmapResNet', step=14, out_indices=(3,), pool=True,
                  drop_path_rate=0.1),
    head=dict(in_channels=768),
    # The backbone knows its step's own initialisation.
    init_cfg=dict(_delete_=True, type='TruncNormal', layer='Linear', std=0.02))
