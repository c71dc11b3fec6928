"""Metrics of 3-D detection."""
from mmdet3d_custom.evaluation.nuscenes_metric import NuScenesSplitMetric

__all__ = ['NuScenesSplitMetric']
