"""Neck of the plain ViT: a feature pyramid from its last map alone."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmcls_custom.backbones.plain_vit_layers import ChannelLayerNorm


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Four parallel branches from one stride-16 map, no top-down path (arXiv:2203.16527, sec. 3).

    Stride 4: transposed convolution to C/2, channel norm, GELU, another to C/4; stride 8: one to
    C/2; stride 16: none; stride 32: max pooling. Then in each a 1x1 and a 3x3 convolution to
    ``out_channels``, both with channel layer norm. Further maps subsample the last one.

    Args:
        in_channels: C, channels of the map; a multiple of 4.
        out_channels: Channels of all output maps.
        num_outs: Output maps, at least 4; strides 4, 8, 16, 32, 64, ...
        init_cfg: mmengine's.

    Raises:
        ValueError: for a value out of bounds, naming it.
    """

    def __init__(self, in_channels: int, out_channels: int = 256, num_outs: int = 5,
                 init_cfg: Any = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if in_channels < 4 or in_channels % 4:
            raise ValueError(f'in_channels is not valid: got {in_channels}, expected a multiple '
                             f'of 4')
        if num_outs < 4:
            raise ValueError(f'num_outs is not valid: got {num_outs}, expected at least 4')
        self.in_channels = in_channels
        self.num_outs = num_outs
        half, quarter = in_channels // 2, in_channels // 4
        resize = [
            ([nn.ConvTranspose2d(in_channels, half, 2, stride=2), ChannelLayerNorm(half),
              nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, stride=2)], quarter),
            ([nn.ConvTranspose2d(in_channels, half, 2, stride=2)], half),
            ([], in_channels),
            ([nn.MaxPool2d(2, ceil_mode=True)], in_channels),
        ]
        self.branches = nn.ModuleList(
            nn.Sequential(*layers, nn.Conv2d(channels, out_channels, 1, bias=False),
                          ChannelLayerNorm(out_channels),
                          nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                          ChannelLayerNorm(out_channels))
            for layers, channels in resize)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Feature maps, of which the last counts -> ``num_outs`` maps (N, out_channels, H_i, W_i).

        Raises:
            ValueError: for another shape than (N, in_channels, H, W).
        """
        x = features[-1]
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f'feature shape is not valid: got {tuple(x.shape)}, expected '
                             f'(N, {self.in_channels}, H, W)')
        outs = [branch(x) for branch in self.branches]
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)
