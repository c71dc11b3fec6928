"""Layers that no published model uses, for measuring what a design decision is worth.

Source: InternImage (arXiv:2211.05778), section 3.1 and the ablation of shared weights.
"""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ops_dcn.functional import dcnv3
from ops_dcn.modules import DCNv3, _blend
from ops_dcn.reference import kernel_taps

__all__ = ['DCNv3Unshared']


class DCNv3Unshared(DCNv3):
    """DCNv3 whose kernel points have output projections of their own, as those of DCNv2.

    Constructor, input and output are those of :class:`ops_dcn.DCNv3`. Point k is projected by the
    columns k*C to (k+1)*C of ``output_proj.weight`` (C, K*C), so the layer has (K - 1) * C**2
    parameters more. With all K projections equal it computes what DCNv3 computes.
    The samples of all points are kept apart, (N, H, W, K*C), which is what the memory goes into.
    In half precision tap and offset are added, and rounded, before the operator gets them.
    """

    def __init__(self, channels: int = 64, *args: Any, **kwargs: Any) -> None:
        super().__init__(channels, *args, **kwargs)
        taps = kernel_taps(self.options['kernel_size'], self.options['dilation'],
                           self.options['remove_center'], kwargs.get('device'))
        self.register_buffer('taps', taps, persistent=False)
        self.output_proj = nn.Linear(len(taps) * channels, channels, device=kwargs.get('device'),
                                     dtype=kwargs.get('dtype'))
        self.reset_projections()

    def reset_projections(self) -> None:
        """Each point's output projection Xavier-uniform as that of DCNv3, with zero bias."""
        with torch.no_grad():
            for weight in self.output_proj.weight.split(self.channels, 1):
                nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.output_proj.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H, W, C)."""
        value, features, offset, mask = self._prepare(input)
        out = self._sample(value, offset, mask)
        if self.center_feature_scale:
            # Every point passes on an equal share of the value.
            out = _blend(out, value.unsqueeze(-2) / len(self.taps), features.unsqueeze(-2),
                         self.center_feature_scale_proj_weight,
                         self.center_feature_scale_proj_bias)
        return self.output_proj(out.flatten(-2))

    def _sample(self, value: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """Sample times mask value of every point, (N, H, W, K, C)."""
        # One call per point, with a kernel of one point: the tap becomes part of the offset.
        offset = offset.unflatten(-1, (self.group, -1, 2)) + self.taps.to(offset.dtype)
        mask = mask.unflatten(-1, (self.group, -1))
        return torch.stack([
            dcnv3(value, offset[..., k, :].flatten(-2), mask[..., k], groups=self.group,
                  kernel_size=1, padding=0, offset_scale=self.options['offset_scale'])
            for k in range(len(self.taps))], -2)
