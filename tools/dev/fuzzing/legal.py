"""Random legal calls of an operator, and their comparison with the reference.

Sizes are small and odd: batches of none to three, maps of one row, kernels that are even or of one
side, strides and dilations that differ by axis. Tensors come in every memory format that a legal
tensor can have; coordinates lie on grid lines and borders, far away, and at NaN and infinity.
"""
from __future__ import annotations

import math
from random import Random
from typing import Any

import torch
from torch import Tensor

import ops_dcn
from ops_dcn.operators import OPERATORS, Call, Convolution, Pyramid
from ops_dcn.reference import output_size

# Relative to the largest value of the result: rounding of sums, and one unit in the last place of
# half precisions, which both sides round once.
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4, torch.float16: 4e-3,
              torch.bfloat16: 3e-2}
_STRANGE = (math.nan, math.inf, -math.inf, 1e30, -1e30, 1e9, 3e4)


def draw_call(name: str, rng: Random) -> Call:
    """Arguments of a legal call.

    Args:
        name: Of the operator.
        rng: Decides everything, together with torch's own generator.
    """
    operator = OPERATORS[name]
    dtype = rng.choice([torch.float64, torch.float32, torch.float32, torch.float16,
                        torch.bfloat16])
    if operator.kind is Convolution:
        call = _draw_convolution(name, rng)
    else:
        call = _draw_pyramid(name, rng)
    tensors = {}
    for key, tensor in call.tensors.items():
        if tensor.is_floating_point():
            tensor = _reformat(tensor.to(dtype), rng)
            if tensor.shape[0] > 1 and rng.random() < 0.1:  # one image for the whole batch
                tensor = tensor[:1].expand_as(tensor)
        elif rng.random() < 0.3:
            tensor = _reformat(tensor, rng)
        tensors[key] = tensor
    return Call(tensors, call.options)


def _draw_convolution(name: str, rng: Random) -> Call:
    while True:
        kernel = (rng.choice([1, 2, 3, 3, 3, 4, 5]), rng.choice([1, 2, 3, 3, 3, 4]))
        options: dict[str, Any] = dict(
            kernel_size=kernel, stride=(rng.randint(1, 3), rng.randint(1, 3)),
            padding=(rng.randint(0, 3), rng.randint(0, 3)),
            dilation=(rng.randint(1, 3), rng.randint(1, 2)))
        height, width = rng.choice([1, 2, 3, 5, 8, 11]), rng.choice([1, 2, 4, 7, 9])
        axes = zip((height, width), *options.values(), strict=True)
        if min(output_size(*axis) for axis in axes) > 0:
            break
    odd = kernel[0] % 2 and kernel[1] % 2 and kernel != (1, 1)
    options['remove_center'] = bool(odd and rng.random() < 0.3)
    options['offset_scale'] = rng.choice([1.0, 1.0, 0.5, 2, -1.5, 0.0, 1e-3])
    size = Convolution(
        rng.choice([0, 1, 1, 2, 3]), height, width, rng.choice([1, 1, 2, 3, 4]),
        rng.choice([1, 2, 3, 4, 5, 8, 13, 16, 17]), spread=rng.choice([0.0, 0.3, 2.0, 8.0]),
        options=options)
    drawn = size.draw(torch.float64)
    _disturb(drawn['offset'], rng, on_grid=rng.choice([1, 0.5, 0.25]))
    call = OPERATORS[name].arrange(**drawn)
    extra = {}
    if name == 'dcnv4':
        extra['softmax'] = rng.random() < 0.5
        if rng.random() < 0.3:  # without the padding to a multiple of 8
            used = 3 * size.groups * size.points
            call.tensors['offset_mask'] = call.tensors['offset_mask'][..., :used]
    given = {key: value[0] if isinstance(value, tuple) and value[0] == value[1]
             and rng.random() < 0.5 else value for key, value in size.call_options().items()}
    return Call(call.tensors, {**given, **call.options, **extra})


def _draw_pyramid(name: str, rng: Random) -> Call:
    # With sizes that are powers of two, grid lines have exact locations.
    on_grid = rng.random() < 0.3
    sides = [1, 2, 4, 8] if on_grid else [1, 2, 3, 4, 5, 6, 7]
    shapes = tuple((rng.choice(sides), rng.choice(sides)) for _ in range(rng.randint(1, 4)))
    size = Pyramid(rng.choice([0, 1, 1, 2, 3]), shapes, rng.choice([1, 2, 3]),
                   rng.choice([1, 2, 4, 5, 8, 16, 17]), rng.randint(1, 5),
                   queries=rng.choice([None, 0, 1, 3, 8]))
    drawn = size.draw(torch.float64)
    locations = drawn['locations']
    if on_grid:  # centres of pixels, or borders between them and the outer edges
        scale = torch.tensor(shapes).flip(1).view(1, 1, 1, len(shapes), 1, 2)
        locations.copy_(((locations * scale).round() + rng.choice([0.0, 0.5])) / scale)
    _disturb(locations, rng, on_grid=None)
    if rng.random() < 0.3:  # rows that no level uses
        unused = torch.randn(size.n, rng.randint(1, 3), size.groups, size.depth,
                             dtype=torch.float64)
        drawn['value'] = torch.cat([drawn['value'], unused], 1)
    return OPERATORS[name].arrange(**drawn)


def _disturb(coordinates: Tensor, rng: Random, on_grid: float | None) -> None:
    """Put some coordinates on grid lines, some far away, some at no place; in place."""
    if on_grid and rng.random() < 0.4:
        coordinates.copy_((coordinates / on_grid).round() * on_grid)
    flat = coordinates.view(-1)
    for _ in range(min(flat.numel(), rng.choice([0, 0, 1, 5]))):
        flat[rng.randrange(flat.numel())] = rng.choice(_STRANGE)


def _reformat(tensor: Tensor, rng: Random) -> Tensor:
    """The same values, laid out in memory in another way."""
    rank = tensor.dim()
    choice = rng.randrange(7)
    if choice == 0:  # axes in any order
        order = rng.sample(range(rank), rank)
        back = [order.index(axis) for axis in range(rank)]
        return tensor.permute(order).contiguous().permute(back)
    if choice == 1:  # a slice along some axis
        axis = rng.randrange(rank)
        around = [tensor.new_full([*tensor.shape[:axis], rng.randint(0, 2),
                                   *tensor.shape[axis + 1:]], 7) for _ in range(2)]
        whole = torch.cat([around[0], tensor, around[1]], axis)
        return whole.narrow(axis, around[0].shape[axis], tensor.shape[axis])
    if choice == 2:  # every second element
        axis = rng.randrange(rank)
        return torch.stack([tensor, torch.zeros_like(tensor)], axis + 1).select(axis + 1, 0)
    if choice == 3:  # any stride where it does not matter
        strides = [rng.choice([0, 1, 5, 99]) if length == 1 or tensor.numel() == 0 else stride
                   for length, stride in zip(tensor.shape, tensor.contiguous().stride(),
                                             strict=True)]
        return tensor.contiguous().as_strided(tensor.shape, strides)
    if choice == 4 and rank == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def find_fault(name: str, call: Call, rng: Random) -> str | None:
    """What differs from the reference, gradients included in half of the calls; None if nothing."""
    with_gradients = rng.random() < 0.5
    layout = rng.randrange(3)
    results = []
    for module in (ops_dcn, ops_dcn.reference):
        inputs = [tensor.detach().requires_grad_(
            with_gradients and tensor.is_floating_point()) for tensor in call.tensors.values()]
        output = getattr(module, name)(*inputs, **call.options)
        found = {'output': output.detach()}
        if with_gradients:
            output.backward(_gradient(output, layout))
            found.update((f'gradient of {key}', tensor.grad) for key, tensor
                         in zip(call.tensors, inputs, strict=True) if tensor.requires_grad)
        results.append(found)
    ours, reference = results
    for key, expected in reference.items():
        fault = _difference(ours[key], expected)
        if fault:
            return f'{key}: {fault}'
    return None


def _gradient(output: Tensor, layout: int) -> Tensor:
    """A gradient of the output: of a sum, or varied, in one or another memory format."""
    if layout == 0:
        return output.new_ones(()).expand_as(output)
    values = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).to(output.dtype)
    if layout == 1:
        return values.view(output.shape)
    return values.view(output.shape[::-1]).permute(*reversed(range(output.dim())))


def _difference(ours: Tensor | None, expected: Tensor | None) -> str | None:
    if ours is None or expected is None:
        return None if ours is expected else f'got {ours}, expected {expected}'
    if ours.shape != expected.shape or ours.dtype != expected.dtype:
        return f'got {ours.dtype} {tuple(ours.shape)}, expected {expected.dtype} ' \
               f'{tuple(expected.shape)}'
    if not expected.numel():
        return None
    finite = torch.isfinite(expected)
    if not torch.equal(finite, torch.isfinite(ours)):
        return 'other elements are finite'
    zero = expected.new_zeros(())
    difference = torch.where(finite, ours, zero).double() - torch.where(
        finite, expected, zero).double()
    error = difference.abs().max() / (1 + torch.where(finite, expected, zero).double().abs().max())
    allowed = _TOLERANCE[expected.dtype]
    return f'relative difference {error:.2g}, allowed {allowed:.2g}' if error > allowed else None
