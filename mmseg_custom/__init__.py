"""Segmentation plug-in: what UperNet and Mask2Former need beyond mmseg.

Importing it registers the shared backbones and necks, the engine, and the plug-in's own parts.
"""
import mmcls_custom.backbones
import mmcls_custom.necks  # noqa: F401
from mmseg_custom.datasets import (
    CheckedLoadAnnotations,
    LabelMapCheck,
    MapillaryAsCityscapes,
    NYUDepthV2Dataset,
)
from mmseg_custom.models import LateUpsampleMask2FormerHead

__all__ = ['CheckedLoadAnnotations', 'LabelMapCheck', 'LateUpsampleMask2FormerHead',
           'MapillaryAsCityscapes', 'NYUDepthV2Dataset']
