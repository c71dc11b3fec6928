"""The operators in plain PyTorch: slow, readable, any floating dtype, any device.

This is the oracle that the compiled kernels are tested against, and a decomposition for exporters
that do not know the compiled operators. Autograd differentiates it; where the interpolation has a
kink (a sample exactly on a grid line) it yields the right-hand derivative, as the kernels do.
The functions trust their arguments. Semantics: ``docs/operators.md``.
"""
from __future__ import annotations

import torch
from torch import Tensor

__all__ = ['dcnv3', 'dcnv4', 'flash_deform_attn', 'kernel_taps', 'ms_deform_attn', 'output_size',
           'pair', 'sampling_points', 'unpack_dcnv4']

IntPair = int | tuple[int, int]


def pair(value: IntPair) -> tuple[int, int]:
    """``(h, w)`` of an int that holds for both axes, or of an ``(h, w)`` pair."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Length of the output along one axis: ordinary convolution arithmetic, rounded down."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def kernel_taps(kernel_size: IntPair = 3, dilation: IntPair = 1, remove_center: bool = False,
                device: torch.device | str | None = None) -> Tensor:
    """The undeformed kernel points (K, 2) as integers (x, y), relative to the kernel's center.

    They are numbered column by column: the horizontal index is the outer loop.
    """
    (kh, kw), dilations = pair(kernel_size), pair(dilation)
    column = torch.arange(kw, device=device).view(kw, 1).expand(kw, kh).reshape(-1)
    row = torch.arange(kh, device=device).view(1, kh).expand(kw, kh).reshape(-1)
    if remove_center:
        center = (kw // 2) * kh + kh // 2
        column, row = (torch.cat([t[:center], t[center + 1:]]) for t in (column, row))
    return torch.stack([tap * dilate - _half(size, dilate) for tap, size, dilate in
                        ((column, kw, dilations[1]), (row, kh, dilations[0]))], -1)


def sampling_points(size: tuple[int, int], offset: Tensor, *, kernel_size: IntPair = 3,
                    stride: IntPair = 1, padding: IntPair = 1, dilation: IntPair = 1,
                    offset_scale: float = 1.0, remove_center: bool = False) -> Tensor:
    """Where :func:`dcnv3` and :func:`dcnv4` sample a value of ``size`` (H, W).

    ``offset`` (N, Ho, Wo, G, K, 2) holds (x, y), to be scaled by ``offset_scale``. The result has
    its shape: (x, y) in pixels of the value, 0 at the center of the first pixel.
    """
    taps = kernel_taps(kernel_size, dilation, remove_center, offset.device)
    center_y, center_x = (
        torch.arange(output_size(length, kernel, step, pad, dilate), device=offset.device) * step
        - pad + _half(kernel, dilate)
        for length, kernel, step, pad, dilate in zip(
            size, *map(pair, (kernel_size, stride, padding, dilation)), strict=True))
    offset = offset.to(_compute_dtype(offset))
    x = center_x[:, None, None] + offset_scale * (taps[:, 0] + offset[..., 0])
    y = center_y[:, None, None, None] + offset_scale * (taps[:, 1] + offset[..., 1])
    return torch.stack([x, y], -1)


def unpack_dcnv4(offset_mask: Tensor, groups: int, points: int) -> tuple[Tensor, Tensor]:
    """Offsets (..., G, K, 2) as (x, y) and mask (..., G, K) of :func:`dcnv4`'s second tensor."""
    packed = offset_mask[..., :3 * points * groups].unflatten(-1, (groups, 3 * points))
    return packed[..., :2 * points].unflatten(-1, (points, 2)), packed[..., 2 * points:]


def dcnv3(value: Tensor, offset: Tensor, mask: Tensor, *, groups: int, kernel_size: IntPair = 3,
          stride: IntPair = 1, padding: IntPair = 1, dilation: IntPair = 1,
          offset_scale: float = 1.0, remove_center: bool = False) -> Tensor:
    """Core of DCNv3; shapes and meaning as in :func:`ops_dcn.dcnv3`."""
    points = sampling_points(
        value.shape[1:3], offset.unflatten(-1, (groups, -1, 2)), kernel_size=kernel_size,
        stride=stride, padding=padding, dilation=dilation, offset_scale=offset_scale,
        remove_center=remove_center)
    return _deform(value, points, mask.unflatten(-1, (groups, -1)))


def dcnv4(value: Tensor, offset_mask: Tensor, *, groups: int, kernel_size: IntPair = 3,
          stride: IntPair = 1, padding: IntPair = 1, dilation: IntPair = 1,
          offset_scale: float = 1.0, remove_center: bool = False,
          softmax: bool = False) -> Tensor:
    """Core of DCNv4; shapes and meaning as in :func:`ops_dcn.dcnv4`."""
    kernel = pair(kernel_size)
    offset, mask = unpack_dcnv4(offset_mask, groups, kernel[0] * kernel[1] - int(remove_center))
    if softmax:
        mask = mask.to(_compute_dtype(mask)).softmax(-1)
    points = sampling_points(
        value.shape[1:3], offset, kernel_size=kernel_size, stride=stride, padding=padding,
        dilation=dilation, offset_scale=offset_scale, remove_center=remove_center)
    return _deform(value, points, mask)


def ms_deform_attn(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor,
                   sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    """Multi-scale deformable attention; as in :func:`ops_dcn.ms_deform_attn`."""
    dtype = _compute_dtype(value)
    # Per level, broadcast over its points: height, width and first row in value.
    height, width, start = (t.to(value.device).unsqueeze(-1)
                            for t in (*spatial_shapes.unbind(-1), level_start_index))
    x = sampling_locations[..., 0].to(dtype) * width - 0.5
    y = sampling_locations[..., 1].to(dtype) * height - 0.5
    weight = attention_weights.to(dtype)
    out = _sample_and_sum(value.to(dtype), x, y, weight, height, width, start)
    return out.flatten(2).to(value.dtype)


def flash_deform_attn(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor,
                      sampling_loc_attn: Tensor, *, num_points: int) -> Tensor:
    """Packed multi-scale deformable attention; as in :func:`ops_dcn.flash_deform_attn`."""
    levels = spatial_shapes.shape[0]
    packed = sampling_loc_attn.to(_compute_dtype(value))
    split = 2 * levels * num_points
    locations = packed[..., :split].unflatten(-1, (levels, num_points, 2))
    weights = packed[..., split:].softmax(-1).unflatten(-1, (levels, num_points))
    out = ms_deform_attn(value.to(packed.dtype), spatial_shapes, level_start_index, locations,
                         weights)
    return out.to(value.dtype)


def _compute_dtype(tensor: Tensor) -> torch.dtype:
    """Half precisions are computed in float32 and rounded once, at the end."""
    return torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype


def _half(kernel: int, dilation: int) -> int:
    """Distance from the first kernel point to the kernel's center, rounded down."""
    return dilation * (kernel - 1) // 2


def _deform(value: Tensor, points: Tensor, mask: Tensor) -> Tensor:
    """Sum over kernel points: ``mask`` (N, Ho, Wo, G, K) times samples of ``value`` (N, H, W, C).

    ``points`` (N, Ho, Wo, G, K, 2) holds (x, y) in pixels.
    """
    dtype = _compute_dtype(value)
    height, width, channels = value.shape[1:]
    groups = mask.shape[3]
    pixels = value.to(dtype).unflatten(-1, (groups, channels // groups)).flatten(1, 2)
    x, y, weight = (t.to(dtype).flatten(1, 2).unsqueeze(-2)
                    for t in (points[..., 0], points[..., 1], mask))
    out = _sample_and_sum(pixels, x, y, weight, height, width, 0)
    return out.flatten(2).unflatten(1, mask.shape[1:3]).to(value.dtype)


def _sample_and_sum(value: Tensor, x: Tensor, y: Tensor, weight: Tensor, height: Tensor | int,
                    width: Tensor | int, start: Tensor | int) -> Tensor:
    """Weighted sum (N, Q, G, D) of bilinear samples.

    ``value`` (N, S, G, D) holds maps of ``height`` x ``width`` pixels, row by row, from row
    ``start``; ``x``, ``y`` (in pixels) and ``weight`` are (N, Q, G, L, P). The sizes are ints or
    broadcast against them.
    """
    n, q, groups, levels, points = x.shape
    depth = value.shape[-1]
    # True for NaN and infinite positions too. These points are replaced before anything is
    # computed from them, so that neither the sum nor a gradient sees them.
    outside = ~((x > -1) & (x < width) & (y > -1) & (y < height))
    x, y, weight = (t.masked_fill(outside, 0) for t in (x, y, weight))
    x0, y0 = x.floor(), y.floor()
    fx, fy = x - x0, y - y0
    flat = value.transpose(1, 2)
    total = value.new_zeros(n, groups, q * levels * points, depth)
    for dx, wx in ((0, 1 - fx), (1, fx)):
        for dy, wy in ((0, 1 - fy), (1, fy)):
            column, row = x0.long() + dx, y0.long() + dy
            absent = outside | (column < 0) | (column >= width) | (row < 0) | (row >= height)
            index = (start + row * width + column).masked_fill(absent, 0)
            index, absent, factor = (
                t.transpose(1, 2).reshape(n, groups, q * levels * points, 1)
                for t in (index, absent, wx * wy * weight))
            corner = flat.gather(2, index.expand(-1, -1, -1, depth)).masked_fill(absent, 0)
            total = total + corner * factor
    return total.reshape(n, groups, q, levels * points, depth).sum(3).transpose(1, 2)
