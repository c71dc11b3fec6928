"""Detection plug-in: what Mask R-CNN, Cascade Mask R-CNN and DINO need beyond mmdet.

Importing it registers the shared backbones and necks, the engine, and the plug-in's own parts.
"""
import mmcls_custom.backbones
import mmcls_custom.necks  # noqa: F401
from mmdet_custom.backbones import CompositeInternImage
from mmdet_custom.data_preprocessor import FixedSizeDetDataPreprocessor
from mmdet_custom.datasets import CocoCheck
from mmdet_custom.models import CompositeDINO
from mmdet_custom.necks import SimpleFeaturePyramid

__all__ = ['CocoCheck', 'CompositeDINO', 'CompositeInternImage', 'FixedSizeDetDataPreprocessor',
           'SimpleFeaturePyramid']
