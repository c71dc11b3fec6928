"""Detectors beyond mmdet's."""
from mmdet_custom.models.composite_dino import CompositeDINO

__all__ = ['CompositeDINO']
