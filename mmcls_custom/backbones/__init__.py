"""Backbones that every task shares, in mmengine's root registry."""
from .internimage import FlashInternImage, InternImage
from .internimage_necks import InternImageClipNeck, InternImageConvNeck
from .plain_vit import PlainViT
from .plain_vit_necks import SimpleFeaturePyramid
from .roadmap import RoadmapResNet

__all__ = ['FlashInternImage', 'InternImage', 'InternImageClipNeck', 'InternImageConvNeck',
           'PlainViT', 'RoadmapResNet', 'SimpleFeaturePyramid']
