"""Heads of classification beyond mmpretrain's.

It imports mmpretrain, so it is imported by the configs that use it only.
"""
from mmcls_custom.models.time_place_head import TimePlaceHead

__all__ = ['TimePlaceHead']
