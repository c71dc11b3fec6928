"""Random problems for every operator, and the comparison of two implementations of it."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import ops_dcn
from ops_dcn import reference

# Relative and absolute tolerance. Half precisions: both sides compute in float32 and round once,
# so one unit in the last place of the result (2**-10 and 2**-7) is what can differ.
TOLERANCE = {
    torch.float64: (1e-9, 1e-10),
    torch.float32: (1e-4, 1e-4),
    torch.float16: (2e-3, 1e-3),
    torch.bfloat16: (1.6e-2, 8e-3),
}
DTYPES = tuple(TOLERANCE)
OPERATORS = ('dcnv3', 'dcnv4', 'ms_deform_attn', 'flash_deform_attn')


@dataclass
class Case:
    """Arguments of one call: tensors by name, in order, then options."""

    op: str
    tensors: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> list[Tensor]:
        return list(self.tensors.values())

    @property
    def floats(self) -> list[Tensor]:
        return [tensor for tensor in self.inputs if tensor.is_floating_point()]

    def to(self, dtype: torch.dtype) -> Case:
        return self.map(lambda tensor: tensor.to(dtype))

    def map(self, change: Callable[[Tensor], Tensor]) -> Case:
        """The case with every floating tensor changed."""
        tensors = {name: change(tensor) if tensor.is_floating_point() else tensor
                   for name, tensor in self.tensors.items()}
        return Case(self.op, tensors, self.options)

    def call(self, *floats: Tensor, module: Any = ops_dcn) -> Tensor:
        """Call the operator, with other floating tensors if some are given."""
        replaced = iter(floats or self.floats)
        inputs = [next(replaced) if tensor.is_floating_point() else tensor
                  for tensor in self.inputs]
        return getattr(module, self.op)(*inputs, **self.options)

    def raw(self) -> tuple[list[Any], list[Any]]:
        """Arguments of the raw forward operator, as (tensors, options)."""
        if self.op == 'ms_deform_attn':
            return self.inputs, []
        if self.op == 'flash_deform_attn':
            return self.inputs, [self.options['num_points']]
        pairs = [reference.pair(self.options.get(name, default)) for name, default in (
            ('kernel_size', 3), ('stride', 1), ('padding', 1), ('dilation', 1))]
        geometry = [size for both in pairs for size in both]
        geometry += [self.options['groups'], int(self.options.get('remove_center', False))]
        options = [geometry, self.options.get('offset_scale', 1.0)]
        return self.inputs, options + ([self.options.get('softmax', False)]
                                       if self.op == 'dcnv4' else [])


def convolution_case(op: str, *, n: int = 2, height: int = 6, width: int = 5, groups: int = 2,
                     depth: int = 3, spread: float = 1.5, softmax: bool = False,
                     padded: bool = True, dtype: torch.dtype = torch.float64,
                     **options: Any) -> Case:
    """A dcnv3 or dcnv4 problem with offsets of ``spread`` pixels standard deviation."""
    kernel, stride, padding, dilation = (reference.pair(options.get(name, default)) for
                                         name, default in (('kernel_size', 3), ('stride', 1),
                                                           ('padding', 1), ('dilation', 1)))
    size = [reference.output_size(*axis) for axis in zip(
        (height, width), kernel, stride, padding, dilation, strict=True)]
    points = kernel[0] * kernel[1] - int(options.get('remove_center', False))
    value = torch.randn(n, height, width, groups * depth, dtype=torch.float64)
    offset = torch.randn(n, *size, groups, 2 * points, dtype=torch.float64) * spread
    mask = torch.randn(n, *size, groups, points, dtype=torch.float64)
    options['groups'] = groups
    if op == 'dcnv3':
        tensors = {'value': value, 'offset': offset.flatten(3), 'mask': mask.flatten(3)}
    else:
        used = torch.cat([offset, mask], -1).flatten(3)
        junk = torch.randn(n, *size, -used.shape[3] % 8 if padded else 0, dtype=torch.float64)
        tensors = {'value': value, 'offset_mask': torch.cat([used, junk], -1)}
        options['softmax'] = softmax
    return Case(op, tensors, options).to(dtype)


def attention_case(op: str, *, n: int = 2, queries: int = 7, groups: int = 2, depth: int = 3,
                   shapes: tuple[tuple[int, int], ...] = ((5, 4), (3, 2), (1, 1)),
                   points: int = 3, dtype: torch.dtype = torch.float64) -> Case:
    """A multi-scale deformable attention problem; some locations lie outside."""
    spatial_shapes = torch.tensor(shapes)
    areas = spatial_shapes.prod(1)
    levels = len(shapes)
    value = torch.randn(n, int(areas.sum()), groups, depth, dtype=torch.float64)
    locations = torch.rand(n, queries, groups, levels, points, 2, dtype=torch.float64) * 1.4 - 0.2
    logits = torch.randn(n, queries, groups, levels * points, dtype=torch.float64)
    tensors = {'value': value, 'spatial_shapes': spatial_shapes,
               'level_start_index': areas.cumsum(0) - areas}
    options = {}
    if op == 'ms_deform_attn':
        tensors['sampling_locations'] = locations
        tensors['attention_weights'] = logits.softmax(-1).unflatten(-1, (levels, points))
    else:
        tensors['sampling_loc_attn'] = torch.cat([locations.flatten(3), logits], -1)
        options['num_points'] = points
    return Case(op, tensors, options).to(dtype)


def make_case(op: str, **options: Any) -> Case:
    """A small problem of any operator."""
    build = convolution_case if op.startswith('dcn') else attention_case
    return build(op, **options)


def outcome(case: Case, grad_output: Tensor | None = None,
            module: Any = ops_dcn) -> dict[str, Tensor]:
    """Output and the gradient of every floating input."""
    names = [name for name, tensor in case.tensors.items() if tensor.is_floating_point()]
    leaves = [tensor.detach().requires_grad_() for tensor in case.floats]
    output = case.call(*leaves, module=module)
    if grad_output is None:
        generator = torch.Generator().manual_seed(7)
        grad_output = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad(output, leaves, grad_output.to(output.dtype))
    named = zip(names, grads, strict=True)
    return {'output': output.detach(), **{f'grad_{name}': grad for name, grad in named}}


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor],
                tolerance: tuple[float, float]) -> None:
    """Compare outcomes; the tolerance of gradients grows with their size, as sums do."""
    assert got.keys() == expected.keys()
    for name, tensor in got.items():
        want = expected[name]
        assert tensor.dtype == want.dtype, name
        rtol, atol = tolerance
        scale = max(1.0, float(want.double().abs().max())) if want.numel() else 1.0
        torch.testing.assert_close(tensor, want, rtol=rtol, atol=atol * scale,
                                   msg=lambda text, name=name: f'{name}: {text}')
