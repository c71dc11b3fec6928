"""Layers of the perspective head, with the published parameter names.

Each tower is shared by the levels, its norms are not. All that follows the convolutions is in
float32 at least, under autocast too.
Source: DD3D (arXiv:2108.06417) and the release of BEVFormer v2.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from mmdet3d_custom.models.bev_attention import at_least_float32

# Components of the class-specific layers.
BOX3D = {'quat': 4, 'ctr': 2, 'depth': 1, 'size': 3, 'conf': 1}


class LevelConv(nn.Conv2d):
    """3x3 convolution, a norm for each level, ReLU."""

    def __init__(self, channels: int, levels: int, norm_cfg: dict) -> None:
        super().__init__(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.ModuleList(build_norm_layer(norm_cfg, channels)[1] for _ in range(levels))

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Features (n, C, h, w) of a level."""
        return self.norm[level](super().forward(x)).relu()


class Scale(nn.Module):
    """A learned factor."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([float(start)]))

    def forward(self, x: Tensor) -> Tensor:
        """The input times the factor."""
        return x * self.scale


class Offset(nn.Module):
    """A learned summand."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([float(start)]))

    def forward(self, x: Tensor) -> Tensor:
        """The input plus the summand."""
        return x + self.bias


class FCOS2DHead(nn.Module):
    """Towers of classes and 2-D boxes, and what is predicted from them."""

    def __init__(self, num_classes: int, channels: int, strides: Sequence[int], num_convs: int,
                 norm_cfg: dict) -> None:
        super().__init__()
        self.cls_tower = _tower(channels, len(strides), num_convs, norm_cfg)
        self.box2d_tower = _tower(channels, len(strides), num_convs, norm_cfg)
        self.cls_logits = predictor(channels, num_classes)
        self.box2d_reg = predictor(channels, 4)
        self.centerness = predictor(channels, 1)
        self.scales_box2d_reg = nn.ModuleList(map(Scale, strides))

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
        """Maps of the classes' tower, and those of the predictions by name."""
        cls_tower = _run_tower(self.cls_tower, features)
        box_tower = _run_tower(self.box2d_tower, features)
        return cls_tower, {
            'cls_logits': [at_least_float32(self.cls_logits(x)) for x in cls_tower],
            'box2d_reg': [scale(at_least_float32(self.box2d_reg(x))).relu()
                          for scale, x in zip(self.scales_box2d_reg, box_tower, strict=True)],
            'centerness': [at_least_float32(self.centerness(x)) for x in box_tower]}


class FCOS3DHead(nn.Module):
    """Tower of 3-D boxes, and their components for every class."""

    def __init__(self, num_classes: int, channels: int, strides: Sequence[int], num_convs: int,
                 norm_cfg: dict, mean_depth: Sequence[float], std_depth: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer('mean_depth_per_level', torch.tensor(mean_depth, dtype=torch.float32))
        self.register_buffer('std_depth_per_level', torch.tensor(std_depth, dtype=torch.float32))
        self.box3d_tower = _tower(channels, len(strides), num_convs, norm_cfg)
        for name, count in BOX3D.items():
            layer = predictor(channels, count * num_classes, bias=name != 'depth')
            setattr(self, f'box3d_{name}', nn.ModuleList([layer]))
        self.scales_proj_ctr = nn.ModuleList(map(Scale, strides))
        self.scales_size = nn.ModuleList(Scale(1) for _ in strides)
        self.scales_conf = nn.ModuleList(Scale(1) for _ in strides)
        self.scales_depth = nn.ModuleList(Scale(0.3 * std) for std in std_depth)
        self.offsets_depth = nn.ModuleList(map(Offset, mean_depth))

    def forward(self, features: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Maps of the components by name."""
        maps: dict[str, list[Tensor]] = {name: [] for name in BOX3D}
        scales = {'ctr': self.scales_proj_ctr, 'size': self.scales_size, 'conf': self.scales_conf,
                  'depth': self.scales_depth}
        for level, x in enumerate(_run_tower(self.box3d_tower, features)):
            for name, found in maps.items():
                out = at_least_float32(getattr(self, f'box3d_{name}')[0](x))
                out = scales[name][level](out) if name in scales else out
                found.append(self.offsets_depth[level](out) if name == 'depth' else out)
        return maps


def predictor(channels: int, out_channels: int, bias: bool = True) -> nn.Conv2d:
    """3x3 convolution that predicts ``out_channels`` values at each location."""
    return nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias)


def _tower(channels: int, levels: int, num_convs: int, norm_cfg: dict) -> nn.ModuleList:
    return nn.ModuleList(LevelConv(channels, levels, norm_cfg) for _ in range(num_convs))


def _run_tower(tower: nn.ModuleList, features: Sequence[Tensor]) -> list[Tensor]:
    found = []
    for level, x in enumerate(features):
        for layer in tower:
            x = layer(x, level)
        found.append(x)
    return found
