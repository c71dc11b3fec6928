"""Necks that more than one task can use, in mmengine's root registry."""
from mmcls_custom.necks.internimage import InternImageClipNeck, InternImageConvNeck

__all__ = ['InternImageClipNeck', 'InternImageConvNeck']
