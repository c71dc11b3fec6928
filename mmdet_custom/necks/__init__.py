"""Necks that only detection has."""
from mmdet_custom.necks.simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['SimpleFeaturePyramid']
