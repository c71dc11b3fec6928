"""Random problems for every operator, and the comparison of two implementations of it."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import ops_dcn
from ops_dcn.operators import OPERATORS as TABLE
from ops_dcn.operators import Convolution, Pyramid

# Relative and absolute tolerance. Half precisions: both sides compute in float32 and round once,
# so one unit in the last place of the result (2**-10 and 2**-7) is what can differ.
TOLERANCE = {
    torch.float64: (1e-9, 1e-10),
    torch.float32: (1e-4, 1e-4),
    torch.float16: (2e-3, 1e-3),
    torch.bfloat16: (1.6e-2, 8e-3),
}
DTYPES = tuple(TOLERANCE)
OPERATORS = tuple(TABLE)
CONVOLUTIONS = tuple(name for name in TABLE if TABLE[name].kind is Convolution)
ATTENTIONS = tuple(name for name in TABLE if TABLE[name].kind is Pyramid)


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

    @property
    def packed(self) -> bool:
        """Whether coordinates and weights share a tensor."""
        return len(TABLE[self.op].differentiable) == 2

    def raw(self) -> tuple[list[Any], list[Any]]:
        """Arguments of the raw forward operator, as (tensors, options)."""
        options = {'offset_scale': 1.0, 'softmax': False, **self.options}
        if self.op in CONVOLUTIONS:
            geometry = Convolution(0, 0, 0, 0, 0, options=self.options).geometry
            options['geometry'] = [*(size for both in geometry for size in both),
                                   options['groups'], int(options.get('remove_center', False))]
        schema = getattr(torch.ops.ops_dcn, TABLE[self.op].raw[0]).default._schema
        names = [argument.name for argument in schema.arguments]
        return self.inputs, [options[name] for name in names if name not in self.tensors]


def convolution_case(op: str, *, n: int = 2, height: int = 6, width: int = 5, groups: int = 2,
                     depth: int = 3, spread: float = 1.5, softmax: bool = False,
                     padded: bool = True, dtype: torch.dtype = torch.float64,
                     **options: Any) -> Case:
    """A convolution's problem with offsets of ``spread`` pixels standard deviation."""
    size = Convolution(n, height, width, groups, depth, spread, options)
    call = TABLE[op].case(size)
    if op == 'dcnv4':
        packed = call.tensors['offset_mask']
        used = 3 * groups * size.points
        # What is beyond the used entries is never read, whatever it holds.
        junk = torch.randn(*packed.shape[:3], packed.shape[3] - used if padded else 0,
                           dtype=torch.float64)
        call.tensors['offset_mask'] = torch.cat([packed[..., :used], junk], -1)
        call.options['softmax'] = softmax
    return Case(op, call.tensors, call.options).to(dtype)


def attention_case(op: str, *, n: int = 2, queries: int = 7, groups: int = 2, depth: int = 3,
                   shapes: tuple[tuple[int, int], ...] = ((5, 4), (3, 2), (1, 1)),
                   points: int = 3, dtype: torch.dtype = torch.float64) -> Case:
    """A multi-scale deformable attention problem; some locations lie outside."""
    call = TABLE[op].case(Pyramid(n, shapes, groups, depth, points, queries))
    return Case(op, call.tensors, call.options).to(dtype)


def make_case(op: str, **options: Any) -> Case:
    """A small problem of any operator."""
    build = convolution_case if op in CONVOLUTIONS else attention_case
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
