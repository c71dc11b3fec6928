"""Data sets of classification: what their class folders are checked for.

It imports mmpretrain, so it is imported by the classification configs only.
"""
from mmcls_custom.datasets.checks import ClassFolderCheck

__all__ = ['ClassFolderCheck']
