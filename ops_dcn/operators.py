"""The table of operators: what everybody who goes through all of them has to know of each.

:data:`OPERATORS` is the only such list. The autograd functions, the fake kernels, the refusal of
CUDA calls, the counts of multiply-adds, the self test, the benchmarks and the tests iterate over
it, and the compiled library must hold the operators that it names and no other.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NoReturn

import torch
from torch import Tensor

from ops_dcn.reference import output_size, pair

__all__ = ['OPERATORS', 'Call', 'Convolution', 'Operator', 'Pyramid', 'multiply_adds',
           'raw_operators']

# A bilinear sample: four corners, and one multiply-add for the weight.
_CORNERS_AND_WEIGHT = 5
_GEOMETRY = {'kernel_size': 3, 'stride': 1, 'padding': 1, 'dilation': 1}
_NAMESPACE = 'ops_dcn::'


@dataclass(frozen=True)
class Call:
    """Arguments of one call of an operator's function.

    Attributes:
        tensors: By name, in the order of the function's arguments.
        options: All others, by name.
    """

    tensors: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Convolution:
    """Size of a problem for an operator that samples around the pixels of a grid.

    Attributes:
        n: Images.
        height: Pixels of the input.
        width: Pixels of the input.
        groups: G.
        depth: D, channels per group.
        spread: Standard deviation of the offsets in pixels.
        options: Options of the call other than ``groups``, as :func:`ops_dcn.dcnv3` has them.
    """

    n: int
    height: int
    width: int
    groups: int
    depth: int
    spread: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def geometry(self) -> list[tuple[int, int]]:
        """Kernel size, stride, padding and dilation, each as (h, w)."""
        return [pair(self.options.get(name, default)) for name, default in _GEOMETRY.items()]

    @property
    def points(self) -> int:
        """K, kernel points."""
        return prod(self.geometry[0]) - int(self.options.get('remove_center', False))

    def draw(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Random value (N, H, W, C), offset (N, Ho, Wo, G, 2*K) and mask (N, Ho, Wo, G, K)."""
        size = [output_size(*axis) for axis in
                zip((self.height, self.width), *self.geometry, strict=True)]
        rows = (self.n, *size, self.groups)
        return {
            'value': torch.randn(self.n, self.height, self.width, self.groups * self.depth,
                                 dtype=dtype),
            'offset': torch.randn(*rows, 2 * self.points, dtype=dtype) * self.spread,
            'mask': torch.randn(*rows, self.points, dtype=dtype)}

    def call_options(self) -> dict[str, Any]:
        """Options of the call."""
        return {'groups': self.groups, **self.options}


@dataclass(frozen=True)
class Pyramid:
    """Size of a problem for an operator that samples the levels of a pyramid.

    Attributes:
        n: Images.
        shapes: (height, width) of each level.
        groups: G, heads.
        depth: D, channels per head.
        points: P, points per level.
        queries: Q, each of which samples anywhere; some locations lie outside. ``None``: one per
            pixel of all levels, which samples around itself, as in an encoder.
    """

    n: int
    shapes: tuple[tuple[int, int], ...]
    groups: int
    depth: int
    points: int
    queries: int | None = None

    def draw(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Random value, levels, locations (N, Q, G, L, P, 2) and logits (N, Q, G, L*P)."""
        shapes = torch.tensor(self.shapes)
        areas = shapes.prod(1)
        value = torch.randn(self.n, int(areas.sum()), self.groups, self.depth, dtype=dtype)
        queries = value.shape[1] if self.queries is None else self.queries
        levels = len(self.shapes)
        size = (self.n, queries, self.groups, levels, self.points, 2)
        if self.queries is None:
            pixels = 2 * torch.randn(size, dtype=dtype)
            locations = self._centers(dtype).view(1, queries, 1, 1, 1, 2) + pixels / (
                shapes.flip(1).view(1, 1, 1, levels, 1, 2))
        else:
            locations = torch.rand(size, dtype=dtype) * 1.4 - 0.2
        return {'value': value, 'spatial_shapes': shapes,
                'level_start_index': areas.cumsum(0) - areas, 'locations': locations,
                'logits': torch.randn(*size[:3], levels * self.points, dtype=dtype)}

    def _centers(self, dtype: torch.dtype) -> Tensor:
        """Centers (S, 2) of the pixels of all levels as (x, y) in 0..1."""
        grids = [torch.meshgrid((torch.arange(height, dtype=dtype) + 0.5) / height,
                                (torch.arange(width, dtype=dtype) + 0.5) / width, indexing='ij')
                 for height, width in self.shapes]
        return torch.cat([torch.stack([x, y], -1).flatten(0, 1) for y, x in grids])

    def call_options(self) -> dict[str, Any]:
        """Options of the call."""
        return {}


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        name: Of its function here and in :mod:`ops_dcn.reference`; the raw operators are
            ``NAME_forward`` and ``NAME_backward``.
        differentiable: Positions of the raw forward's arguments that have a gradient, in the order
            in which the raw backward returns them. The second holds the coordinates.
        fake: The raw forward without data: an empty tensor of the shape, dtype and device.
        macs: Multiply-adds of the raw forward: called with its arguments, shapes in the place of
            tensors, and ``out_shape``.
        kind: :class:`Convolution` or :class:`Pyramid`: the sizes of self test, benchmarks, tests.
        arrange: The tensors that ``kind.draw`` yields -> the operator's own.
        variants: Options of the calls that the self test makes.

    Raises:
        ValueError: A function is missing; above all, an operator without a cost would count as 0.
    """

    name: str
    differentiable: tuple[int, ...]
    fake: Callable[..., Tensor]
    macs: Callable[..., int]
    kind: type[Convolution] | type[Pyramid]
    arrange: Callable[..., Call]
    variants: tuple[Mapping[str, Any], ...] = ({},)

    def __post_init__(self) -> None:
        for part in ('fake', 'macs', 'arrange'):
            if not callable(getattr(self, part)):
                raise ValueError(f'{self.name}.{part} is not valid: got {getattr(self, part)!r}, '
                                 'expected a function; write one, see ops_dcn/operators.py')

    @property
    def raw(self) -> tuple[str, str]:
        """Names of the raw operators, forward and backward."""
        return f'{self.name}_forward', f'{self.name}_backward'

    def case(self, size: Convolution | Pyramid, dtype: torch.dtype = torch.float64,
             **options: Any) -> Call:
        """Arguments of a call of this size, with random tensors."""
        call = self.arrange(**size.draw(dtype))
        return Call(call.tensors, {**size.call_options(), **call.options, **options})


def raw_operators() -> set[str]:
    """Names of all raw operators that are registered, whoever did it."""
    return {name.removeprefix(_NAMESPACE).partition('.')[0]
            for name in torch._C._dispatch_get_all_op_names() if name.startswith(_NAMESPACE)}


def multiply_adds() -> dict[Any, Callable[..., int]]:
    """The cost of every raw operator ``torch.ops.ops_dcn.NAME``, for a counter of operations.

    Each function takes the operator's arguments, shapes in the place of tensors, and ``out_shape``.
    For a raw operator that the table does not know, and for a backward, it raises ``ValueError``:
    what a counter does not know it takes for free.
    """
    known = {operator.raw[0]: operator.macs for operator in OPERATORS.values()}
    return {getattr(torch.ops.ops_dcn, name): known.get(name) or _refuse_cost(name)
            for name in raw_operators()}


def _refuse_cost(name: str) -> Callable[..., int]:
    def refuse(*inputs: Any, **options: Any) -> NoReturn:
        raise ValueError(f'multiply-adds of ops_dcn::{name} are not valid: got no formula, '
                         f'expected one of {sorted(op.raw[0] for op in OPERATORS.values())}; count '
                         'a forward pass, or enter the operator in ops_dcn/operators.py')
    return refuse


def _fake_convolution(value: Tensor, *rest: Any) -> Tensor:
    """(N, Ho, Wo, C): the last tensor is followed by the geometry."""
    geometry = next(item for item in rest if not isinstance(item, Tensor))
    size = [output_size(value.shape[1 + axis], *geometry[axis:8:2]) for axis in (0, 1)]
    return value.new_empty(value.shape[0], *size, value.shape[3])


def _fake_pyramid(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor,
                  locations: Tensor, *rest: Any) -> Tensor:
    """(N, Q, G*D)."""
    n, _, groups, depth = value.shape
    return value.new_empty(n, locations.shape[1], groups * depth)


def _macs_convolution(*inputs: Any, out_shape: tuple[int, ...]) -> int:
    geometry = next(item for item in inputs if isinstance(item, list))
    points = geometry[0] * geometry[1] - geometry[9]
    return _CORNERS_AND_WEIGHT * points * prod(out_shape)


def _macs_pyramid(value: Any, shapes: Any, starts: Any, locations: tuple[int, ...],
                  *rest: Any, out_shape: tuple[int, ...]) -> int:
    # (N, Q, G, L, P, 2), or packed (N, Q, G, 3*L*P).
    points = locations[3] * locations[4] if len(locations) == 6 else locations[3] // 3
    return _CORNERS_AND_WEIGHT * points * prod(out_shape)


def _arrange_dcnv3(value: Tensor, offset: Tensor, mask: Tensor) -> Call:
    return Call({'value': value, 'offset': offset.flatten(3), 'mask': mask.flatten(3)})


def _arrange_dcnv4(value: Tensor, offset: Tensor, mask: Tensor) -> Call:
    packed = torch.cat([offset, mask], -1).flatten(3)
    return Call({'value': value, 'offset_mask': torch.nn.functional.pad(
        packed, (0, -packed.shape[3] % 8))})


def _arrange_ms_deform_attn(locations: Tensor, logits: Tensor, **levels: Tensor) -> Call:
    weights = logits.softmax(-1).unflatten(-1, locations.shape[3:5])
    return Call({**levels, 'sampling_locations': locations, 'attention_weights': weights})


def _arrange_flash_deform_attn(locations: Tensor, logits: Tensor, **levels: Tensor) -> Call:
    packed = torch.cat([locations.flatten(3), logits], -1)
    return Call({**levels, 'sampling_loc_attn': packed}, {'num_points': locations.shape[4]})


# In the order of tables and reports.
OPERATORS: dict[str, Operator] = {operator.name: operator for operator in (
    Operator('dcnv3', differentiable=(0, 1, 2), fake=_fake_convolution, macs=_macs_convolution,
             kind=Convolution, arrange=_arrange_dcnv3),
    Operator('dcnv4', differentiable=(0, 1), fake=_fake_convolution, macs=_macs_convolution,
             kind=Convolution, arrange=_arrange_dcnv4,
             variants=({'softmax': False}, {'softmax': True})),
    Operator('ms_deform_attn', differentiable=(0, 3, 4), fake=_fake_pyramid, macs=_macs_pyramid,
             kind=Pyramid, arrange=_arrange_ms_deform_attn),
    Operator('flash_deform_attn', differentiable=(0, 3), fake=_fake_pyramid, macs=_macs_pyramid,
             kind=Pyramid, arrange=_arrange_flash_deform_attn),
)}
