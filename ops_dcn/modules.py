"""Modules: the projections around one functional call.

``DCNv3``, ``DCNv4`` and ``FlashDeformAttn`` have the constructor keywords, parameter names and
initialisation of the published modules, so published weights load as they are.
Sources: InternImage (arXiv:2211.05778), DCNv4 (arXiv:2401.06197), Deformable DETR
(arXiv:2010.04159).
"""
from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops_dcn._checks import (
    expect_choice,
    expect_divisor,
    expect_flag,
    expect_int,
    expect_scale,
)
from ops_dcn.functional import dcnv3, dcnv4, flash_deform_attn

__all__ = ['DCNv3', 'DCNv4', 'FlashDeformAttn']

_Device = torch.device | str | None
_ACTIVATIONS = {'GELU': nn.GELU, 'ReLU': nn.ReLU, 'SiLU': nn.SiLU}


class DCNv3(nn.Module):
    """DCNv3 layer (InternImage): offsets and a softmax mask from depthwise features.

    Args:
        channels: C, in and out.
        kernel_size: Side of the square kernel.
        dw_kernel_size: Odd side of the depthwise kernel; ``None`` means ``kernel_size``.
        stride: As ``pad`` and ``dilation`` one int for both axes. The offsets have the resolution
            of the input, hence only values that keep it are valid.
        pad: Zero padding in pixels.
        dilation: Spacing of the kernel points in pixels.
        group: G, a divisor of ``channels``.
        offset_scale: Factor on the regular grid and the offsets.
        act_layer: ``'GELU'``, ``'ReLU'`` or ``'SiLU'``.
        norm_layer: ``'LN'`` or ``'BN'``.
        center_feature_scale: Blend the projected input into the output, by a learned gate per
            group.
        remove_center: Drop the center point; needs an odd kernel.
        device: Of the parameters, as ``dtype``; ``None`` means torch's default.
        dtype: Of the parameters.

    Raises:
        ValueError: An argument is not valid.
    """

    def __init__(self, channels: int = 64, kernel_size: int = 3, dw_kernel_size: int | None = None,
                 stride: int = 1, pad: int = 1, dilation: int = 1, group: int = 4,
                 offset_scale: float = 1.0, act_layer: str = 'GELU', norm_layer: str = 'LN',
                 center_feature_scale: bool = False, remove_center: bool = False,
                 device: _Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        at = {'device': device, 'dtype': dtype}
        dw_kernel_size = kernel_size if dw_kernel_size is None else dw_kernel_size
        _check_layer(channels, kernel_size, dw_kernel_size, stride, pad, dilation, group,
                     remove_center, offset_scale)
        expect_choice('act_layer', act_layer, tuple(_ACTIVATIONS))
        expect_choice('norm_layer', norm_layer, ('LN', 'BN'))
        self.channels = channels
        self.group = group
        self.center_feature_scale = center_feature_scale
        self.options = {'groups': group, 'kernel_size': kernel_size, 'stride': stride,
                        'padding': pad, 'dilation': dilation, 'offset_scale': offset_scale,
                        'remove_center': remove_center}
        points = kernel_size ** 2 - int(remove_center)
        # The nesting gives the published keys: dw_conv.0, dw_conv.1.1 (LN) or dw_conv.1.0 (BN).
        norm = ([_ToChannelsLast(), nn.LayerNorm(channels, eps=1e-6, **at)] if norm_layer == 'LN'
                else [nn.BatchNorm2d(channels, **at), _ToChannelsLast()])
        self.dw_conv = nn.Sequential(_depthwise(channels, dw_kernel_size, **at),
                                     nn.Sequential(*norm), _ACTIVATIONS[act_layer]())
        self.offset = nn.Linear(channels, group * points * 2, **at)
        self.mask = nn.Linear(channels, group * points, **at)
        self.input_proj = nn.Linear(channels, channels, **at)
        self.output_proj = nn.Linear(channels, channels, **at)
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.zeros(group, channels, **at))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.zeros(group, **at))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero offsets and equal mask values; Xavier-uniform projections with zero bias."""
        _zero(self.offset, self.mask)
        _xavier(self.input_proj, self.output_proj)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H, W, C)."""
        value, features, offset, mask = self._prepare(input)
        out = dcnv3(value, offset, mask, **self.options)
        if self.center_feature_scale:
            out = _blend(out, value, features, self.center_feature_scale_proj_weight,
                         self.center_feature_scale_proj_bias)
        return self.output_proj(out)

    def _prepare(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Value, depthwise features (both of the input's shape), offset and mask."""
        _expect_last('input', input, 4, self.channels, '(N, H, W, C)')
        value = self.input_proj(input)
        features = self.dw_conv(input.permute(0, 3, 1, 2))
        mask = self.mask(features).unflatten(-1, (self.group, -1)).softmax(-1).flatten(-2)
        # Autocast computes softmax in float32; the mask goes back to the dtype of the value.
        return value, features, self.offset(features), mask.to(value.dtype)


class DCNv4(nn.Module):
    """DCNv4 layer (FlashInternImage): offsets and an unbounded mask from one linear layer.

    At initialisation mask and output are zero, as published; the mask learns first.

    Args:
        channels: C, in and out.
        kernel_size: Side of the square kernel.
        stride: As in :class:`DCNv3`: with ``pad`` and ``dilation`` it must keep the resolution.
        pad: Zero padding in pixels.
        dilation: Spacing of the kernel points in pixels.
        group: G, a divisor of ``channels``.
        offset_scale: Factor on the regular grid and the offsets.
        dw_kernel_size: Odd side of a depthwise convolution before the linear layer; ``None`` means
            no convolution.
        center_feature_scale: Blend the projected input into the output, by a learned gate per
            group.
        remove_center: Drop the center point; needs an odd kernel.
        output_bias: Whether the output projection has a bias.
        without_pointwise: Drop both projections.
        device: Of the parameters, as ``dtype``; ``None`` means torch's default.
        dtype: Of the parameters.

    Raises:
        ValueError: An argument is not valid.
    """

    _merged: tuple[Tensor, ...] = ()  # weight and bias of both projections; see below

    def __init__(self, channels: int = 64, kernel_size: int = 3, stride: int = 1, pad: int = 1,
                 dilation: int = 1, group: int = 4, offset_scale: float = 1.0,
                 dw_kernel_size: int | None = None, center_feature_scale: bool = False,
                 remove_center: bool = False, output_bias: bool = True,
                 without_pointwise: bool = False, device: _Device = None,
                 dtype: torch.dtype | None = None) -> None:
        super().__init__()
        at = {'device': device, 'dtype': dtype}
        _check_layer(channels, kernel_size, dw_kernel_size, stride, pad, dilation, group,
                     remove_center, offset_scale)
        self.channels = channels
        self.group = group
        self.K = group * (kernel_size ** 2 - int(remove_center))
        self.center_feature_scale = center_feature_scale
        self.without_pointwise = without_pointwise
        self.options = {'groups': group, 'kernel_size': kernel_size, 'stride': stride,
                        'padding': pad, 'dilation': dilation, 'offset_scale': offset_scale,
                        'remove_center': remove_center}
        self.offset_mask_dw = (None if dw_kernel_size is None
                               else _depthwise(channels, dw_kernel_size, **at))
        self.offset_mask = nn.Linear(channels, _padded_width(self.K), **at)
        if not without_pointwise:
            self.value_proj = nn.Linear(channels, channels, **at)
            self.output_proj = nn.Linear(channels, channels, bias=output_bias, **at)
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.zeros(group, channels, **at))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.zeros(group, **at))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero offsets and mask; Xavier-uniform projections with zero bias."""
        _zero(self.offset_mask)
        if not self.without_pointwise:
            _xavier(self.value_proj, self.output_proj)

    def merge_projections(self) -> bool:
        """Let inference compute value, offsets and mask in one matrix product.

        The parameters of both layers stay and keep their names, but become parts of one tensor, so
        whatever changes them in place (``load_state_dict``, an optimizer) still does. Numbers
        change by rounding. Has no effect in training mode or while gradients are recorded, and none
        after the module has moved to another device or dtype: then call it again.

        Returns:
            Whether it can be done; not with ``dw_kernel_size`` or ``without_pointwise``.
        """
        if self.without_pointwise or self.offset_mask_dw is not None:
            return False
        merged = []
        for name in ('weight', 'bias'):
            parts = [getattr(layer, name) for layer in (self.value_proj, self.offset_mask)]
            whole = torch.cat([part.detach() for part in parts])
            for part, place in zip(parts, whole.split([len(part) for part in parts]), strict=True):
                part.data = place
            merged.append(whole)
        self._merged = tuple(merged)
        return True

    def forward(self, input: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """Map (N, L, C) with ``shape`` (H, W), or (N, H, W, C), to an output of the same shape.

        Without ``shape`` the L tokens must form a square. ``ValueError`` where they do not, or
        where ``shape`` disagrees with the input.
        """
        _expect_last('input', input, (3, 4), self.channels, '(N, L, C) or (N, H, W, C)')
        image = input if input.dim() == 4 else input.unflatten(1, _grid(input.shape[1], shape))
        if shape is not None and tuple(shape) != tuple(image.shape[1:3]):
            raise ValueError(f'shape is not valid: got {tuple(shape)}, expected '
                             f'{tuple(image.shape[1:3])} of the input; omit it for (N, H, W, C) '
                             'input')
        value, offset_mask = self._project(image)
        out = dcnv4(value, offset_mask, **self.options)
        if self.center_feature_scale:
            out = _blend(out, value, out, self.center_feature_scale_proj_weight,
                         self.center_feature_scale_proj_bias)
        if not self.without_pointwise:
            out = self.output_proj(out)
        return out.reshape(input.shape)

    def _project(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Value and packed offsets and mask of an image (N, H, W, C)."""
        if self._merged and not self.training and not torch.is_grad_enabled():
            layers = (self.value_proj, self.offset_mask)
            parameters = [[getattr(layer, name) for layer in layers] for name in ('weight', 'bias')]
            if torch.compiler.is_compiling():  # addresses cannot be compared
                both = F.linear(image, *map(torch.cat, parameters))
                return both.split([self.channels, self.offset_mask.out_features], -1)
            if all(map(_are_parts, parameters, self._merged)):
                both = F.linear(image, *self._merged)
                return both.split([self.channels, self.offset_mask.out_features], -1)
        query = image
        if self.offset_mask_dw is not None:
            query = self.offset_mask_dw(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        value = image if self.without_pointwise else self.value_proj(image)
        return value, self.offset_mask(query)


class FlashDeformAttn(nn.Module):
    """Multi-scale deformable attention layer around :func:`ops_dcn.flash_deform_attn`.

    Sampling locations are never rounded to half precision: where they would be, the core operator
    runs in float32.

    Args:
        d_model: C, in and out.
        n_levels: L.
        n_heads: G, a divisor of ``d_model``.
        n_points: P, points per level and head.
        device: Of the parameters, as ``dtype``; ``None`` means torch's default.
        dtype: Of the parameters.

    Raises:
        ValueError: ``n_heads`` does not divide ``d_model``.
    """

    def __init__(self, d_model: int = 256, n_levels: int = 4, n_heads: int = 8,
                 n_points: int = 4, device: _Device = None,
                 dtype: torch.dtype | None = None) -> None:
        super().__init__()
        at = {'device': device, 'dtype': dtype}
        expect_divisor('d_model', d_model, 'n_heads', n_heads)
        expect_int('n_levels', n_levels, 1)
        expect_int('n_points', n_points, 1)
        self.d_model = d_model
        self.n_levels = n_levels
        self.n_heads = n_heads
        self.n_points = n_points
        self.sampling_offsets = nn.Linear(d_model, n_heads * n_levels * n_points * 2, **at)
        self.attention_weights = nn.Linear(d_model, n_heads * n_levels * n_points, **at)
        self.value_proj = nn.Linear(d_model, d_model, **at)
        self.output_proj = nn.Linear(d_model, d_model, **at)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Each head looks in its own direction, point p at p + 1 pixels; equal attention."""
        _zero(self.sampling_offsets, self.attention_weights)
        _xavier(self.value_proj, self.output_proj)
        angle = torch.arange(self.n_heads, dtype=torch.float32) * (2 * math.pi / self.n_heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.n_points + 1, dtype=torch.float32)
        pattern = direction[:, None, None, :] * distance[:, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(pattern.expand(-1, self.n_levels, -1, -1).flatten())

    def forward(self, query: Tensor, reference_points: Tensor, input_flatten: Tensor,
                input_spatial_shapes: Tensor, input_level_start_index: Tensor,
                input_padding_mask: Tensor | None = None) -> Tensor:
        """Attend from the queries to the levels.

        Args:
            query: (N, Q, C).
            reference_points: (N, Q, L, 2) as (x, y) in 0..1 of the level, or (N, Q, L, 4) as
                (center x, center y, width, height).
            input_flatten: (N, S, C), the levels one after the other.
            input_spatial_shapes: (L, 2) int64, (height, width) of each level.
            input_level_start_index: (L,) int64.
            input_padding_mask: (N, S) bool, True for rows that count as zero.

        Returns:
            (N, Q, C).
        """
        _expect_last('query', query, 3, self.d_model, '(N, Q, C)')
        _expect_last('input_flatten', input_flatten, 3, self.d_model, '(N, S, C)')
        value = self.value_proj(input_flatten)
        if input_padding_mask is not None:
            value = value.masked_fill(input_padding_mask[..., None], 0)
        value = value.unflatten(-1, (self.n_heads, -1))
        locations = self._locations(query, reference_points, input_spatial_shapes)
        logits = self.attention_weights(query).unflatten(-1, (self.n_heads, -1))
        packed = torch.cat([locations.flatten(3), logits.to(locations.dtype)], -1)
        dtype = torch.promote_types(value.dtype, packed.dtype)
        out = flash_deform_attn(value.to(dtype), input_spatial_shapes, input_level_start_index,
                                packed.to(dtype), num_points=self.n_points)
        return self.output_proj(out.to(value.dtype))

    def _locations(self, query: Tensor, reference_points: Tensor,
                   spatial_shapes: Tensor) -> Tensor:
        """Sampling locations (N, Q, G, L, P, 2), in float32 or float64."""
        expected = (*query.shape[:2], self.n_levels)
        if reference_points.shape[:-1] != expected or reference_points.shape[-1] not in (2, 4):
            raise ValueError(f'reference_points.shape is not valid: got '
                             f'{tuple(reference_points.shape)}, expected {expected} and 2 (x, y) '
                             'or 4 (center x, center y, width, height); one per query and level')
        if spatial_shapes.shape != (self.n_levels, 2):
            raise ValueError(f'input_spatial_shapes.shape is not valid: got '
                             f'{tuple(spatial_shapes.shape)}, expected {(self.n_levels, 2)}; pass '
                             '(height, width) of each of the n_levels')
        offsets = self.sampling_offsets(query)
        dtype = torch.promote_types(torch.float32, torch.promote_types(
            offsets.dtype, reference_points.dtype))
        offsets = offsets.to(dtype).unflatten(
            -1, (self.n_heads, self.n_levels, self.n_points, 2))
        reference = reference_points.to(dtype)[:, :, None, :, None, :]
        if reference.shape[-1] == 2:
            sizes = spatial_shapes.flip(-1).to(offsets.device, dtype)
            return reference + offsets / sizes[:, None]
        return reference[..., :2] + offsets / self.n_points * reference[..., 2:] * 0.5


class _ToChannelsLast(nn.Module):
    """Turns (N, C, H, W) into (N, H, W, C)."""

    def forward(self, input: Tensor) -> Tensor:
        return input.permute(0, 2, 3, 1)


def _depthwise(channels: int, kernel_size: int, **at: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size, padding=(kernel_size - 1) // 2,
                     groups=channels, **at)


def _padded_width(points: int) -> int:
    """Length of the packed offsets and mask of that many points: a multiple of 8, as published."""
    return math.ceil(3 * points / 8) * 8


def _zero(*layers: nn.Linear) -> None:
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def _are_parts(parts: list[Tensor], whole: Tensor) -> bool:
    """Whether the parts still lie one after the other in ``whole``."""
    address = whole.data_ptr()
    for part in parts:
        if part.dtype != whole.dtype or part.data_ptr() != address:
            return False
        address += part.numel() * part.itemsize
    return True


def _xavier(*layers: nn.Linear) -> None:
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _blend(out: Tensor, value: Tensor, query: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Mix ``value`` into ``out``, both (N, H, W, C); ``query`` gives the gate of each group."""
    gate = F.linear(query, weight, bias).sigmoid().to(out.dtype)
    gate = gate.repeat_interleave(out.shape[-1] // gate.shape[-1], -1)
    return out * (1 - gate) + value * gate


def _grid(length: int, shape: tuple[int, int] | None) -> tuple[int, int]:
    """(H, W) of ``length`` tokens."""
    if shape is None:
        side = math.isqrt(length)
        if side * side != length:
            raise ValueError(f'shape is not valid: got None with {length} tokens, expected (H, W) '
                             'because they form no square; pass shape=(H, W)')
        return side, side
    height, width = shape
    if height * width != length:
        raise ValueError(f'shape is not valid: got {(height, width)}, expected H * W = {length} '
                         'tokens; pass the (H, W) that was flattened')
    return height, width


def _expect_last(name: str, tensor: Tensor, ranks: int | tuple[int, ...], channels: int,
                 layout: str) -> None:
    ranks = (ranks,) if isinstance(ranks, int) else ranks
    if tensor.dim() not in ranks or tensor.shape[-1] != channels:
        raise ValueError(f'{name}.shape is not valid: got {tuple(tensor.shape)}, expected {layout} '
                         f'with C = {channels}; channels come last')


def _check_layer(channels: int, kernel_size: int, dw_kernel_size: int | None, stride: int,
                 pad: int, dilation: int, group: int, remove_center: bool,
                 offset_scale: float) -> None:
    """What DCNv3 and DCNv4 have in common: offsets have the input's resolution."""
    expect_divisor('channels', channels, 'group', group)
    for name, value, least in (('kernel_size', kernel_size, 1), ('stride', stride, 1),
                               ('pad', pad, 0), ('dilation', dilation, 1)):
        expect_int(name, value, least)
    expect_flag('remove_center', remove_center)
    expect_scale(offset_scale, torch.float64)
    if (channels // group) & (channels // group - 1):
        warnings.warn(f'channels / group is {channels // group}; kernels are fastest with a power '
                      'of two', stacklevel=3)
    if dw_kernel_size is not None:
        expect_int('dw_kernel_size', dw_kernel_size, 1)
    if dw_kernel_size is not None and dw_kernel_size % 2 == 0:
        raise ValueError(f'dw_kernel_size is not valid: got {dw_kernel_size}, expected an odd '
                         'number; the depthwise convolution must keep the resolution')
    if stride != 1 or 2 * pad != dilation * (kernel_size - 1):
        raise ValueError(f'stride, pad is not valid: got {stride}, {pad}, expected 1 and dilation '
                         '* (kernel_size - 1) / 2, because offsets have the resolution of the '
                         'input; use DCNv4Conv2d to change it')
    if remove_center and (kernel_size % 2 == 0 or kernel_size == 1):
        raise ValueError(f'remove_center is not valid: got True with kernel_size {kernel_size}, '
                         'expected an odd kernel larger than 1; use remove_center=False')
