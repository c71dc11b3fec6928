"""nuScenes with frames: data set, transforms, info files, and the checks before a run."""
from mmdet3d_custom.datasets import checks, synthetic, transforms
from mmdet3d_custom.datasets.nuscenes import TemporalNuScenesDataset

__all__ = ['TemporalNuScenesDataset', 'checks', 'synthetic', 'transforms']
