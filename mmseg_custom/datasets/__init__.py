"""Data sets of segmentation: what their label maps are checked for."""
from mmseg_custom.datasets.checks import LabelMapCheck

__all__ = ['LabelMapCheck']
