"""Data sets of detection: how annotations in COCO's format are read, and what is checked.

Importing it has mmdet's data sets and metrics of COCO and LVIS mend and check what they read.
"""
from mmdet_custom.datasets import coco_api, lvis_api
from mmdet_custom.datasets.checks import CocoCheck
from mmdet_custom.datasets.other_formats import CrowdHumanCheck, OpenImagesCheck, XmlCheck

coco_api.install()
lvis_api.install()

__all__ = ['CocoCheck', 'CrowdHumanCheck', 'OpenImagesCheck', 'XmlCheck']
