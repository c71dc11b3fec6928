"""Small problems for the loops of the oracle: borders, grid lines, far and non-finite positions.

They are drawn from a seed when a test runs. Every number is a float32, so that both precisions
compute the same problem.
"""
from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.ops_dcn import oracle
from tests.ops_dcn.cases import TOLERANCE, Case, assert_same, outcome

NAN, INF = math.nan, math.inf
# Strictly inside, exactly on and just beyond every border of an axis of 4 pixels.
EDGES = (-1.25, -1.0, -0.75, -0.5, 0.0, 0.5, 3.0, 3.25, 3.75, 4.0, 4.25)
FAR = (-1e30, -3e9, -6e4, 6e4, 3e9, 1e30)
BROKEN = (NAN, INF, -INF)

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    'plain': {},
    'batch_of_three': {'n': 3, 'groups': 3, 'depth': 2},
    'empty_batch': {'n': 0},
    'even': {'kernel_size': 2, 'size': (5, 4)},
    'even_dilated': {'kernel_size': 2, 'dilation': 3, 'padding': 2, 'size': (5, 6)},
    'even_rectangular': {'kernel_size': (2, 4), 'padding': (0, 2), 'offset_scale': 1.5},
    'asymmetric': {'kernel_size': (3, 2), 'stride': (2, 1), 'padding': (2, 1),
                   'dilation': (1, 2), 'size': (6, 5), 'offset_scale': 0.75},
    'tall': {'kernel_size': (5, 1), 'padding': (2, 0), 'stride': (1, 3), 'size': (4, 7)},
    'stride_beyond_the_kernel': {'kernel_size': 1, 'stride': (3, 2), 'padding': 0, 'size': (7, 5)},
    'no_center': {'remove_center': True, 'groups': 4, 'depth': 1},
    'no_center_rectangular': {'remove_center': True, 'kernel_size': (1, 5), 'padding': (0, 2),
                              'offset_scale': 2.0},
    'one_pixel': {'size': (1, 1), 'groups': 1, 'depth': 5},
    'one_group': {'groups': 1, 'depth': 7, 'dilation': 2, 'padding': 2},
    'zero_offsets': {'offsets': 'zero'},
    'grid_lines': {'offsets': 'whole', 'size': (4, 3)},
    'grid_lines_scaled': {'offsets': 'whole', 'offset_scale': 2.0},
    'borders': {'offsets': 'edges', 'kernel_size': 1, 'padding': 0, 'size': (4, 4), 'groups': 4,
                'depth': 2},
    'far': {'offsets': 'far'},
    'not_finite': {'offsets': 'broken'},
    'scale_zero': {'offset_scale': 0.0, 'size': (3, 4)},
}
ATTENTIONS: dict[str, dict[str, Any]] = {
    'plain': {},
    'batch_of_three': {'n': 3, 'groups': 3, 'depth': 1},
    'empty_batch': {'n': 0},
    'no_queries': {'queries': 0},
    'one_level': {'shapes': ((3, 5),), 'points': 1, 'depth': 5},
    'one_pixel_levels': {'shapes': ((1, 1), (1, 4), (3, 1)), 'points': 4},
    'levels_out_of_order': {'starts': (9, 0, 7), 'rows': 20},
    'borders': {'locations': 'edges', 'shapes': ((4, 4), (4, 4)), 'queries': 31, 'points': 2},
    'far': {'locations': 'far'},
    'not_finite': {'locations': 'broken'},
}
CASES = [(op, name) for ops, names in (
    (('dcnv3', 'dcnv4', 'dcnv4_softmax'), CONVOLUTIONS),
    (('ms_deform_attn', 'flash_deform_attn'), ATTENTIONS)) for op in ops for name in names]


@functools.cache
def draw(op: str, name: str) -> tuple[Case, Tensor, dict[str, Tensor]]:
    """A case in float64, a gradient of its output, and what the oracle makes of both."""
    random = np.random.default_rng(sum(f'{op} {name}'.encode()))
    build = _convolution if name in CONVOLUTIONS and 'dcn' in op else _attention
    names = CONVOLUTIONS if build is _convolution else ATTENTIONS
    case = build(random, op, **names[name])
    shape = oracle.output_shape(case.op, [tuple(t.shape) for t in case.inputs], case.options)
    grad_output = _tensor(random.standard_normal(shape))
    return case, grad_output, oracle.outcome(case.op, case.tensors, case.options, grad_output)


def check(op: str, name: str, dtype: torch.dtype, module: Any) -> None:
    """Compare output and gradients of the operator of a module with the oracle's."""
    case, grad_output, expected = draw(op, name)
    got = outcome(case.to(dtype), grad_output, module)
    assert {tensor.dtype for tensor in got.values()} == {dtype}
    assert_same({key: tensor.double() for key, tensor in got.items()}, expected, TOLERANCE[dtype])


def _tensor(array: np.ndarray) -> Tensor:
    """In float64, rounded to float32; copied, as NumPy's empty arrays have strides of their own."""
    rounded = torch.from_numpy(array.astype(np.float32))
    return torch.empty(array.shape, dtype=torch.float64).copy_(rounded)


def _spoilt(random: np.random.Generator, array: np.ndarray, numbers: tuple[float, ...]
            ) -> np.ndarray:
    """Every third pair (x, y) of the array has one or two of the numbers."""
    pairs = array.reshape(-1, 2)
    for place in range(0, len(pairs), 3):
        axes = ((0,), (1,), (0, 1))[random.integers(3)]
        pairs[place, axes] = random.choice(numbers, len(axes))
    return pairs.reshape(array.shape)


def _edge_pairs(count: int) -> np.ndarray:
    """(count, 2): every pair (x, y) of edges, again and again."""
    pairs = np.array([(x, y) for x in EDGES for y in EDGES])
    return np.resize(pairs, (count, 2))


def _convolution(random: np.random.Generator, op: str, *, n: int = 2,
                 size: tuple[int, int] = (4, 5), groups: int = 2, depth: int = 3,
                 offsets: str = 'spread', **geometry: Any) -> Case:
    op, _, softmax = op.partition('_')
    points = oracle.point_count(**geometry)
    if offsets == 'edges':
        n = math.ceil(len(EDGES)**2 / (math.prod(size) * groups))
    value = random.standard_normal((n, *size, groups * depth))
    rows = oracle.output_shape(op, [value.shape], geometry)[:3]
    shape = (*rows, groups, points, 2)
    offset = 1.5 * random.standard_normal(shape)
    mask = random.standard_normal(shape[:-1])
    if offsets == 'zero':
        offset[:] = 0
    elif offsets == 'whole':
        offset = random.integers(-3, 4, shape).astype(float)
    elif offsets == 'edges':
        # A kernel of one point: pixel (row, column) samples at its own place plus the offset.
        pixels = np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0])), -1)
        offset = _edge_pairs(offset[..., 0].size).reshape(shape) - pixels[:, :, None, None]
    elif offsets in ('far', 'broken'):
        offset = _spoilt(random, offset, FAR if offsets == 'far' else BROKEN)
    if not softmax:  # where a point lies outside, not even an infinite mask shows
        mask[(np.abs(offset) > 1e5).any(-1)] = INF
        mask[np.isnan(offset).any(-1)] = NAN
    if op == 'dcnv3':
        return Case(op, {'value': _tensor(value),
                         'offset': _tensor(offset.reshape(*rows, groups * points * 2)),
                         'mask': _tensor(mask.reshape(*rows, groups * points))},
                    {'groups': groups, **geometry})
    packed = np.concatenate([offset.reshape(*shape[:4], 2 * points), mask], -1).reshape(
        *rows, 3 * groups * points)
    # Odd batches have the padding of published weights, which holds anything.
    junk = np.full((*rows, -packed.shape[3] % 8 if n % 2 else 0), NAN)
    return Case(op, {'value': _tensor(value), 'offset_mask': _tensor(np.concatenate(
        [packed, junk], -1))}, {'groups': groups, 'softmax': bool(softmax), **geometry})


def _attention(random: np.random.Generator, op: str, *, n: int = 2, queries: int = 5,
               groups: int = 2, depth: int = 3,
               shapes: tuple[tuple[int, int], ...] = ((3, 2), (1, 2), (2, 3)), points: int = 3,
               starts: tuple[int, ...] | None = None, rows: int | None = None,
               locations: str = 'spread') -> Case:
    areas = [height * width for height, width in shapes]
    if starts is None:
        starts = tuple(sum(areas[:level]) for level in range(len(areas)))
    value = random.standard_normal((n, rows or sum(areas), groups, depth))
    shape = (n, queries, groups, len(shapes), points, 2)
    places = random.uniform(-0.3, 1.3, shape)
    weights = random.standard_normal(shape[:-1])
    if locations == 'edges':  # x * width - 0.5 is exact for a width of 4
        places = (_edge_pairs(weights.size).reshape(shape) + 0.5) / 4
    elif locations in ('far', 'broken'):
        places = _spoilt(random, places, FAR if locations == 'far' else BROKEN)
    tensors = {'value': _tensor(value), 'spatial_shapes': torch.tensor(shapes),
               'level_start_index': torch.tensor(starts)}
    if op == 'ms_deform_attn':
        weights[~np.isfinite(places).all(-1)] = INF
        return Case(op, {**tensors, 'sampling_locations': _tensor(places),
                         'attention_weights': _tensor(weights)})
    numbers = len(shapes) * points
    packed = np.concatenate([places.reshape(*shape[:3], 2 * numbers),
                             weights.reshape(*shape[:3], numbers)], -1)
    return Case(op, {**tensors, 'sampling_loc_attn': _tensor(packed)}, {'num_points': points})
