"""Heads of segmentation beyond mmseg's."""
from mmseg_custom.models.mask2former import LateUpsampleMask2FormerHead

__all__ = ['LateUpsampleMask2FormerHead']
