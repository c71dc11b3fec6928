"""Data sets of detection: what their annotations are checked for."""
from mmdet_custom.datasets.checks import CocoCheck

__all__ = ['CocoCheck']
