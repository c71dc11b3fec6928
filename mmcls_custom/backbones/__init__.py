"""Backbones of all tasks, in mmengine's root registry.

Those built on mmpretrain's classes, ``convnext`` and ``vision_transformer``, are not imported here:
configs name the module in ``custom_imports``.
"""
import mmcls_custom.backbones.openmmlab  # noqa: F401  (answers for OpenMMLab's backbones)
from mmcls_custom.backbones.internimage import FlashInternImage, InternImage
from mmcls_custom.backbones.plain_vit import PlainViT
from mmcls_custom.backbones.roadmap import RoadmapResNet

__all__ = ['FlashInternImage', 'InternImage', 'PlainViT', 'RoadmapResNet']
