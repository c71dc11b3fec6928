"""The operators made of grid_sample: the PyTorch form that ``bench_ops.py`` measures against.

They take what the functions of ``ops_dcn`` take, as far as the benchmark needs it. An operator
without an entry in :data:`FORMS` is measured alone and compared with ``ops_dcn.reference``.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL, POINTS = 3, 9


def dcnv3(value: Tensor, offset: Tensor, mask: Tensor, *, groups: int) -> Tensor:
    """DCNv3 through one batched grid_sample; stride 1, 3x3, padding 1."""
    n, h, w, _ = value.shape
    taps = torch.arange(POINTS)
    x = torch.arange(w)[:, None, None] + (taps // KERNEL - 1)
    y = torch.arange(h)[:, None, None, None] + (taps % KERNEL - 1)
    offset = offset.view(n, h, w, groups, POINTS, 2)
    grid = torch.stack(
        (
            (2 * (x + offset[..., 0]) + 1) / w - 1,
            (2 * (y + offset[..., 1]) + 1) / h - 1,
        ),
        -1,
    )
    grid = grid.permute(0, 3, 1, 2, 4, 5).reshape(n * groups, h, w * POINTS, 2)
    image = value.view(n, h, w, groups, -1).permute(0, 3, 4, 1, 2).flatten(0, 1)
    samples = F.grid_sample(image, grid, padding_mode='zeros', align_corners=False)
    mask = mask.view(n, h, w, groups, POINTS).permute(0, 3, 1, 2, 4)
    samples = samples.view(n, groups, -1, h, w, POINTS) * mask[:, :, None]
    return samples.sum(-1).permute(0, 3, 4, 1, 2).reshape(n, h, w, -1)


def dcnv4(value: Tensor, offset_mask: Tensor, *, groups: int) -> Tensor:
    """DCNv4: unpack, then as :func:`dcnv3`."""
    n, h, w, _ = value.shape
    packed = offset_mask[..., : 3 * groups * POINTS].view(n, h, w, groups, 3 * POINTS)
    offset, mask = packed.split((2 * POINTS, POINTS), -1)
    return dcnv3(value, offset.flatten(3), mask.flatten(3), groups=groups)


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Multi-scale deformable attention: one batched grid_sample per level."""
    n, queries, heads, levels, points, _ = sampling_locations.shape
    grids = 2 * sampling_locations - 1
    sizes = [(height, width) for height, width in spatial_shapes.tolist()]
    samples = []
    for level, part in enumerate(value.split([height * width for height, width in sizes], 1)):
        image = part.permute(0, 2, 3, 1).reshape(n * heads, -1, *sizes[level])
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        samples.append(F.grid_sample(image, grid, padding_mode='zeros', align_corners=False))
    weights = attention_weights.transpose(1, 2).reshape(n * heads, 1, queries, levels * points)
    output = (torch.cat(samples, -1) * weights).sum(-1)
    return output.view(n, -1, queries).transpose(1, 2).contiguous()


def flash_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_loc_attn: Tensor,
    *,
    num_points: int,
) -> Tensor:
    """Unpack, softmax, then as :func:`ms_deform_attn`."""
    n, queries, heads, _ = sampling_loc_attn.shape
    levels = len(spatial_shapes)
    points = levels * num_points
    locations, logits = sampling_loc_attn.split((2 * points, points), -1)
    shape = (n, queries, heads, levels, num_points)
    return ms_deform_attn(
        value,
        spatial_shapes,
        level_start_index,
        locations.reshape(*shape, 2),
        logits.softmax(-1).view(shape),
    )


FORMS: dict[str, Callable[..., Tensor]] = {
    'dcnv3': dcnv3,
    'dcnv4': dcnv4,
    'ms_deform_attn': ms_deform_attn,
    'flash_deform_attn': flash_deform_attn,
}
