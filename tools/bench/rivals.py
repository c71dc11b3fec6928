"""Other implementations of the same operators, as far as they are installed.

They are imported by name, because measuring against them is their only purpose here. Each factory
gives a call for the tensors of a problem, or None where the package is absent or cannot do it.
"""
from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Call = Callable[..., Tensor]


def find(module: str, name: str) -> Any:
    """A name of a module, or None where it cannot be imported, whatever the reason."""
    try:
        return getattr(importlib.import_module(module), name)
    except Exception:  # packages built for another torch fail in many ways
        return None


def dcnv4_rivals(groups: int, depth: int) -> dict[str, Call]:
    """For (value, offset_mask), 3x3."""
    calls: dict[str, Call] = {}
    if function := find('DCNv4.functions', 'DCNv4Function'):
        calls['published DCNv4'] = lambda value, packed: function.apply(
            value, packed, 3, 3, 1, 1, 1, 1, 1, 1, groups, depth, 1.0, 256, 0)
    if attn := find('deformops.registry', 'attn'):
        calls['deformops'] = lambda value, packed: attn(
            value, packed, kernel_size=3, groups=groups, group_dims=depth)
    return calls


def dcnv3_rivals(groups: int, depth: int) -> dict[str, Call]:
    """For (value, offset, mask), 3x3."""
    calls: dict[str, Call] = {}
    function = (find('DCNv3.functions', 'DCNv3Function')
                or find('ops_dcnv3.functions', 'DCNv3Function')
                or find('dcnv3', 'DCNv3Function'))
    if function:
        calls['published DCNv3'] = lambda value, offset, mask: function.apply(
            value, offset, mask, 3, 3, 1, 1, 1, 1, 1, 1, groups, depth, 1.0, 256, 0)
    return calls


def attention_rivals(groups: int, depth: int) -> dict[str, Call]:
    """For (value, spatial_shapes, level_start_index, locations, weights)."""
    calls: dict[str, Call] = {}
    function = find('mmcv.ops.multi_scale_deform_attn', 'MultiScaleDeformableAttnFunction')
    if function:
        calls['mmcv'] = lambda value, shapes, starts, locations, weights: function.apply(
            value, shapes, starts, locations, weights, value.shape[0])
    if msda := find('deformops.registry', 'msda'):
        calls['deformops'] = msda
    return calls


_RIVALS = {'dcnv3': dcnv3_rivals, 'dcnv4': dcnv4_rivals, 'ms_deform_attn': attention_rivals}


def of_operator(op: str, groups: int, depth: int) -> dict[str, Call]:
    """For the tensors of an operator, at ``groups`` and channels per group; none is fine."""
    return _RIVALS[op](groups, depth) if op in _RIVALS else {}


class _DeformConv(nn.Module):
    """Modulated deformable convolution with learned offsets, as DCNv2 uses it, NCHW inside."""

    def __init__(self, channels: int, operator: Callable[..., Tensor]) -> None:
        super().__init__()
        self.offset = nn.Conv2d(channels, 27, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3) / channels)
        self.operator = operator

    def forward(self, image: Tensor) -> Tensor:
        image = image.permute(0, 3, 1, 2).contiguous()
        offset, mask = self.offset(image).split((18, 9), 1)
        out = self.operator(image, offset.contiguous(), mask.sigmoid(), self.weight)
        return out.permute(0, 2, 3, 1)


class _Attention(nn.Module):
    """Multi-head attention over all pixels, or over windows of ``window`` x ``window``."""

    def __init__(self, channels: int, depth: int = 32, window: int = 0) -> None:
        super().__init__()
        self.heads, self.window = channels // depth, window
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, image: Tensor) -> Tensor:
        n, h, w, c = image.shape
        side = self.window
        if side:
            image = nn.functional.pad(image, (0, 0, 0, -w % side, 0, -h % side))
            rows, columns = image.shape[1] // side, image.shape[2] // side
            image = image.view(n, rows, side, columns, side, c).transpose(2, 3)
        tokens = image.reshape(-1, side * side if side else h * w, c)
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        out = self.proj(out.transpose(1, 2).flatten(2))
        if not side:
            return out.view(n, h, w, c)
        out = out.view(n, rows, columns, side, side, c).transpose(2, 3)
        return out.reshape(n, rows * side, columns * side, c)[:, :h, :w]


class _Depthwise(nn.Module):
    """Depthwise 7x7 convolution between two projections, NHWC."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)

    def forward(self, image: Tensor) -> Tensor:
        out = self.conv(self.first(image).permute(0, 3, 1, 2))
        return self.last(out.permute(0, 2, 3, 1))


def module_rivals(channels: int) -> dict[str, nn.Module]:
    """Layers that map (N, H, W, C) to the same shape; projections included."""
    modules: dict[str, nn.Module] = {
        'attention (SDPA)': _Attention(channels),
        'window attention 7x7': _Attention(channels, window=7),
        'depthwise 7x7': _Depthwise(channels),
    }
    if deform := find('torchvision.ops', 'deform_conv2d'):
        modules['torchvision deform_conv2d'] = _DeformConv(
            channels, lambda x, offset, mask, weight: deform(x, offset, weight, padding=1,
                                                             mask=mask))
    if modulated := find('mmcv.ops', 'modulated_deform_conv2d'):
        modules['mmcv modulated_deform_conv2d'] = _DeformConv(
            channels, lambda x, offset, mask, weight: modulated(
                x, offset, mask, weight, None, 1, 1, 1, 1, 1))
    return modules
