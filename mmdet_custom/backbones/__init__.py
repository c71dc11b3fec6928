"""Backbones that only detection has."""
from mmdet_custom.backbones.composite import CompositeInternImage

__all__ = ['CompositeInternImage']
