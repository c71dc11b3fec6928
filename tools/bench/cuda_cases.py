"""The problems that are measured on CUDA: shapes, tensors, calls."""
from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import ops_dcn
from ops_dcn.operators import Convolution, Pyramid
from tools.bench import limits, rivals

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


def _problem(op: str, size: Convolution | Pyramid, shape: str, gathered: int, dtype: torch.dtype,
             device: str) -> Problem:
    """One operator at one size; ``shape`` is what the table calls it."""
    case = ops_dcn.OPERATORS[op].case(size, torch.float32)
    inputs = [_leaf(tensor, dtype, device) if tensor.is_floating_point() else tensor.to(device)
              for tensor in case.tensors.values()]
    call = functools.partial(getattr(ops_dcn, op), **case.options)
    calls = {'ops_dcn': call, **rivals.of_operator(op, size.groups, size.depth)}
    return Problem(op, shape, inputs, calls, gathered, call)


def convolutions(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype, spread: float,
                 device: str) -> Iterator[Problem]:
    """Operators on grids, 3x3, offsets of ``spread`` pixels standard deviation."""
    for n, h, w, groups, depth in shapes:
        size = Convolution(n, h, w, groups, depth, spread)
        gathered = limits.gathered_bytes(n * h * w, size.points, groups * depth, dtype)
        for op, operator in ops_dcn.OPERATORS.items():
            if operator.kind is Convolution:
                yield _problem(op, size, f'{n}x{h}x{w}, {groups}x{depth}', gathered, dtype, device)


def attentions(names: tuple[str, ...], dtype: torch.dtype, device: str,
               batch: int = 2) -> Iterator[Problem]:
    """Operators on pyramids: every pixel samples around itself, in all levels."""
    for name in names:
        levels = PYRAMIDS[name]
        size = Pyramid(batch, levels, HEADS, HEAD_CHANNELS, LEVEL_POINTS)
        queries = sum(height * width for height, width in levels)
        gathered = limits.gathered_bytes(
            batch * queries, len(levels) * LEVEL_POINTS, HEADS * HEAD_CHANNELS, dtype)
        shape = f'{batch}x{queries} queries, {HEADS}x{HEAD_CHANNELS} ({name})'
        for op, operator in ops_dcn.OPERATORS.items():
            if operator.kind is Pyramid:
                yield _problem(op, size, shape, gathered, dtype, device)


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
