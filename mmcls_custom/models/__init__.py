"""Models that only classification has, built on mmpretrain's, in mmengine's root registry.

Importing it registers them: ``custom_imports = dict(imports=['mmcls_custom.models'])``.
"""
from .convnext import DeformableConvNeXt, IsotropicConvNeXt
from .vision_transformer import DeformableVisionTransformer

__all__ = ['DeformableConvNeXt', 'DeformableVisionTransformer', 'IsotropicConvNeXt']
