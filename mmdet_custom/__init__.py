"""Detection plug-in: what Mask R-CNN, Cascade Mask R-CNN and DINO need beyond mmdet.

Importing it registers the shared backbones and engine parts, and the plug-in's own.
"""
import mmcls_custom.backbones
import mmcls_custom.engine  # noqa: F401

from .data_preprocessor import FixedSizeDetDataPreprocessor

__all__ = ['FixedSizeDetDataPreprocessor']
