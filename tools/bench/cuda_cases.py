"""The problems that are measured on CUDA: shapes, tensors, calls."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import ops_dcn
from tools.bench import limits, rivals

POINTS = 9
# N, H, W, groups, channels per group: the stages of FlashInternImage-T at batch 64, an image of
# 800 x 1280 after its stem, and shapes that no published table of tuned launches holds.
STAGES = ((64, 56, 56, 4, 16), (64, 28, 28, 8, 16), (64, 14, 14, 16, 16), (64, 7, 7, 32, 16),
          (1, 200, 320, 4, 16))
UNTUNED = ((2, 50, 84, 4, 16), (3, 13, 13, 16, 16), (1, 100, 167, 8, 16), (5, 31, 47, 6, 32),
           (7, 20, 20, 5, 24))
# N, H, W, C after the operator table of the DCNv4 paper, usual and high resolution; to be compared
# with the paper before figures are put beside its own.
MODULES = ((64, 56, 56, 128), (64, 28, 28, 256), (64, 14, 14, 512), (64, 7, 7, 1024),
           (64, 14, 14, 768), (1, 200, 320, 128), (1, 100, 160, 256), (1, 50, 80, 512),
           (1, 25, 40, 1024), (1, 64, 64, 768))
# Levels (height, width) of the encoders of Mask2Former at 512, 640 and 1024 pixels and of DINO.
PYRAMIDS = {
    'Mask2Former 512': ((64, 64), (32, 32), (16, 16)),
    'Mask2Former 640': ((80, 80), (40, 40), (20, 20)),
    'Mask2Former 1024': ((128, 128), (64, 64), (32, 32)),
    'DINO 800x1333': ((100, 167), (50, 84), (25, 42), (13, 21)),
}
HEADS, HEAD_CHANNELS, LEVEL_POINTS = 8, 32, 4


@dataclass
class Problem:
    """One operator at one shape, and everybody who can compute it."""

    op: str
    shape: str
    inputs: list[Tensor]  # differentiable where floating
    calls: dict[str, Callable[..., Tensor]]
    gathered: int  # bytes of all corners; 0: no limit by L1 is known
    exact: Callable[..., Tensor] | None = None  # runs on the CPU in float64, for comparison

    @property
    def leaves(self) -> list[Tensor]:
        """What gets a gradient."""
        return [tensor for tensor in self.inputs if tensor.requires_grad]


def _leaf(tensor: Tensor, dtype: torch.dtype, device: str) -> Tensor:
    return tensor.to(device, dtype).requires_grad_()


def convolutions(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype, spread: float,
                 device: str) -> Iterator[Problem]:
    """DCNv4 and DCNv3, 3x3, offsets of ``spread`` pixels standard deviation."""
    for n, h, w, groups, depth in shapes:
        shape = f'{n}x{h}x{w}, {groups}x{depth}'
        value = torch.randn(n, h, w, groups * depth)
        offset = torch.randn(n, h, w, groups, 2 * POINTS) * spread
        mask = torch.randn(n, h, w, groups, POINTS)
        packed = torch.cat([offset, mask], -1).flatten(3)
        packed = nn.functional.pad(packed, (0, -packed.shape[3] % 8))
        gathered = limits.gathered_bytes(n * h * w, POINTS, groups * depth, dtype)

        def dcnv4(*inputs: Tensor, g: int = groups) -> Tensor:
            return ops_dcn.dcnv4(*inputs, groups=g)

        def dcnv3(*inputs: Tensor, g: int = groups) -> Tensor:
            return ops_dcn.dcnv3(*inputs, groups=g)

        yield Problem(
            'dcnv4', shape, [_leaf(t, dtype, device) for t in (value, packed)],
            {'ops_dcn': dcnv4, **rivals.dcnv4_rivals(groups, depth)}, gathered, dcnv4)
        yield Problem(
            'dcnv3', shape,
            [_leaf(t, dtype, device) for t in (value, offset.flatten(3), mask.flatten(3))],
            {'ops_dcn': dcnv3, **rivals.dcnv3_rivals(groups, depth)}, gathered, dcnv3)


def attentions(names: tuple[str, ...], dtype: torch.dtype, device: str,
               batch: int = 2) -> Iterator[Problem]:
    """Multi-scale deformable attention: every pixel asks around itself, in all levels."""
    for name in names:
        levels = torch.tensor(PYRAMIDS[name])
        areas = levels.prod(1)
        starts, queries = areas.cumsum(0) - areas, int(areas.sum())
        centres = torch.cat([torch.stack(torch.meshgrid(
            (torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing='ij'), -1
        ).flip(-1).flatten(0, 1) for h, w in PYRAMIDS[name]])
        locations = centres.view(1, queries, 1, 1, 1, 2) + 2 * torch.randn(
            batch, queries, HEADS, len(levels), LEVEL_POINTS, 2
        ) / levels.flip(1).view(1, 1, 1, -1, 1, 2)
        logits = torch.randn(batch, queries, HEADS, len(levels) * LEVEL_POINTS)
        weights = logits.softmax(-1).unflatten(-1, (len(levels), LEVEL_POINTS))
        value = torch.randn(batch, queries, HEADS, HEAD_CHANNELS)
        fixed = [levels.to(device), starts.to(device)]
        gathered = limits.gathered_bytes(
            batch * queries, len(levels) * LEVEL_POINTS, HEADS * HEAD_CHANNELS, dtype)
        shape = f'{batch}x{queries} queries, {HEADS}x{HEAD_CHANNELS} ({name})'

        def msda(*inputs: Tensor) -> Tensor:
            return ops_dcn.ms_deform_attn(*inputs)

        def flash(*inputs: Tensor) -> Tensor:
            return ops_dcn.flash_deform_attn(*inputs, num_points=LEVEL_POINTS)

        value = _leaf(value, dtype, device)
        yield Problem(
            'ms_deform_attn', shape,
            [value, *fixed, _leaf(locations, dtype, device), _leaf(weights, dtype, device)],
            {'ops_dcn': msda, **rivals.attention_rivals()}, gathered, msda)
        packed = torch.cat([locations.flatten(3), logits], -1)
        yield Problem('flash_deform_attn', shape, [value, *fixed, _leaf(packed, dtype, device)],
                      {'ops_dcn': flash}, gathered, flash)


def modules(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype,
            device: str) -> Iterator[Problem]:
    """Whole layers at equal width, projections included; DCNv4 with 16 channels per group."""
    for n, h, w, channels in shapes:
        layers: dict[str, nn.Module] = {
            'DCNv4': ops_dcn.DCNv4(channels, group=channels // 16),
            'DCNv3': ops_dcn.DCNv3(channels, group=channels // 16)}
        for layer in layers.values():
            for parameter in layer.parameters():  # learned offsets, not the initial ones
                nn.init.normal_(parameter, std=channels ** -0.5)
        layers |= rivals.module_rivals(channels)
        for layer in layers.values():
            layer.to(device, dtype)
        image = _leaf(torch.randn(n, h, w, channels), dtype, device)
        yield Problem('module', f'{n}x{h}x{w}x{channels}', [image], layers, 0)
