"""Data sets of classification: what class folders, labels and heads are checked for.

It imports mmpretrain, so it is imported by the classification configs only.
"""
from mmcls_custom.datasets.checks import ClassCheck, ClassFolderCheck

__all__ = ['ClassCheck', 'ClassFolderCheck']
