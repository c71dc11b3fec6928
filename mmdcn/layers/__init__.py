"""Layers that heads of every task share."""
from mmdcn.layers.deformable_attention import (
    MultiScaleDeformableAttention,
    replace_deformable_attention,
)

__all__ = ['MultiScaleDeformableAttention', 'replace_deformable_attention']
