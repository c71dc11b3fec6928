"""Segmentation plug-in: what UperNet and Mask2Former need beyond mmseg.

Importing it registers the shared backbones and engine parts.
"""
import mmcls_custom.backbones
import mmcls_custom.engine  # noqa: F401
