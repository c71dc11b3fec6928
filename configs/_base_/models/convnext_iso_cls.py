"""Classifier: isotropic ConvNeXt-S, linear head."""
_base_ = 'mmpretrain::_base_/models/convnext/convnext-base.py'
model = dict(
    backbone=dict(type='IsotropicConvNeXt', arch='small', drop_path_rate=0.1),
    head=dict(in_channels=384))
