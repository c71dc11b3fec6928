"""Data sets of segmentation: what their label maps are checked for, before a run and as read."""
from mmseg_custom.datasets.checks import LabelMapCheck
from mmseg_custom.datasets.mapillary import MapillaryAsCityscapes
from mmseg_custom.datasets.nyu_depth_v2 import NYUDepthV2Dataset
from mmseg_custom.datasets.transforms import CheckedLoadAnnotations

__all__ = ['CheckedLoadAnnotations', 'LabelMapCheck', 'MapillaryAsCityscapes', 'NYUDepthV2Dataset']
