"""Backbones that every task shares, in mmengine's root registry."""
from .internimage import FlashInternImage, InternImage
from .internimage_necks import InternImageClipNeck, InternImageConvNeck

__all__ = ['FlashInternImage', 'InternImage', 'InternImageClipNeck', 'InternImageConvNeck']
