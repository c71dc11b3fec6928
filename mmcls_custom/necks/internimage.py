"""What stands between InternImage and a linear classifier, as necks of an mmpretrain classifier.

Use ``mmpretrain.LinearClsHead`` behind either. In a published classification checkpoint
``conv_head.*``, ``dcnv3_head_*``, ``clip_projector.*`` and ``fc_norm.*`` are the neck's keys,
``head.*`` the linear head's ``fc.*``.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F


@MODELS.register_module()
class InternImageConvNeck(BaseModule):
    """1x1 convolution, batch norm, GELU and global average pooling (T to XL, Flash).

    Args:
        in_channels: Channels of the last feature map.
        expand_ratio: Output channels over ``in_channels``.
        init_cfg: mmengine's.
    """

    def __init__(self, in_channels: int, expand_ratio: float = 1.5, init_cfg: Any = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.out_channels = int(in_channels * expand_ratio)
        self.conv_head = nn.Sequential(
            nn.Conv2d(in_channels, self.out_channels, 1, bias=False),
            nn.Sequential(nn.BatchNorm2d(self.out_channels)),
            nn.GELU())

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor]:
        """Feature maps (N, C_i, H_i, W_i), of which the last counts -> ((N, out_channels),)."""
        return (self.conv_head(features[-1]).mean(dim=(2, 3)),)


class _AttentionPool(nn.Module):
    """One query, the mean token, attends to all tokens: (N, L, C) -> (N, out_channels)."""

    def __init__(self, channels: int, num_heads: int, out_channels: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        for name in ('norm1_q', 'norm1_k', 'norm1_v'):
            setattr(self, name, nn.Sequential(nn.LayerNorm(channels, eps=1e-6)))
        self.cross_dcn = nn.Module()
        for name in ('q', 'k', 'v'):
            setattr(self.cross_dcn, name, nn.Linear(channels, channels, bias=False))
            setattr(self.cross_dcn, f'{name}_bias', nn.Parameter(torch.zeros(channels)))
        self.cross_dcn.proj = nn.Linear(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.cross_dcn
        mean = x.mean(dim=1, keepdim=True)
        q = F.linear(self.norm1_q(mean), attention.q.weight, attention.q_bias)
        k = F.linear(self.norm1_k(x), attention.k.weight, attention.k_bias)
        v = F.linear(self.norm1_v(x), attention.v.weight, attention.v_bias)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        pooled = F.scaled_dot_product_attention(q, k, v)
        return attention.proj(pooled.transpose(1, 2).flatten(1))


@MODELS.register_module()
class InternImageClipNeck(BaseModule):
    """Joins the last two feature maps and pools them by attention (H and G).

    The last map is brought to the size of the one before it by pixel shuffle, so the image's
    height and width must be multiples of 32.

    Args:
        in_channels: Channels of the last two feature maps.
        channels: Width of the joint map.
        num_heads: Attention heads.
        out_channels: Width of the pooled vector.
        init_cfg: mmengine's.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 1024, num_heads: int = 16,
                 out_channels: int = 768, init_cfg: Any = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.out_channels = out_channels
        self.dcnv3_head_x4 = nn.Sequential(
            nn.Conv2d(in_channels[-1], 4 * channels, 1), nn.PixelShuffle(2))
        self.dcnv3_head_x3 = nn.Conv2d(in_channels[-2], channels, 1)
        self.clip_projector = _AttentionPool(channels, num_heads, out_channels)
        self.fc_norm = nn.Sequential(nn.LayerNorm(out_channels, eps=1e-6))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor]:
        """Feature maps (N, C_i, H_i, W_i), of which the last two count -> ((N, out_channels),).

        Raises:
            ValueError: where the last map is not exactly half the size of the one before.
        """
        x3, x4 = features[-2:]
        if x3.shape[2:] != tuple(2 * s for s in x4.shape[2:]):
            raise ValueError(
                f'feature sizes are not valid: got {tuple(x3.shape[2:])} and {tuple(x4.shape[2:])},'
                ' expected the first to be twice the second; use an image size divisible by 32')
        x = self.dcnv3_head_x4(x4) + self.dcnv3_head_x3(x3)
        return (self.fc_norm(self.clip_projector(x.flatten(2).transpose(1, 2))),)
