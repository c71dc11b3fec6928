"""Function transforms, compilers, exporters and autocast."""
from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import ops_dcn
from ops_dcn import reference
from tests.ops_dcn.cases import (
    CONVOLUTIONS,
    OPERATORS,
    TOLERANCE,
    Case,
    assert_same,
    make_case,
    outcome,
)

FLOAT64 = TOLERANCE[torch.float64]
for_every_operator = pytest.mark.parametrize('op', OPERATORS)


def loss(case: Case, module: object = ops_dcn) -> Callable[..., Tensor]:
    return lambda *floats: case.call(*floats, module=module).square().sum()


def named(results: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return {str(i): tensor for i, tensor in enumerate(results)}


@for_every_operator
def test_func_grad(op: str) -> None:
    case = make_case(op)
    positions = tuple(range(len(case.floats)))
    got, expected = (torch.func.grad(loss(case, module), argnums=positions)(*case.floats)
                     for module in (ops_dcn, reference))
    assert_same(named(got), named(expected), FLOAT64)


@for_every_operator
def test_vmap(op: str) -> None:
    case = make_case(op)
    stacked = [torch.stack([tensor, -tensor, tensor / 2], 1) for tensor in case.floats]
    got = torch.vmap(case.call, in_dims=1)(*stacked)
    expected = torch.stack([case.call(*(t[:, i] for t in stacked)) for i in range(3)])
    assert torch.equal(got, expected)


@for_every_operator
def test_vmap_of_one_argument(op: str) -> None:
    case = make_case(op)
    value, *rest = case.floats
    values = torch.stack([value, -value])
    got = torch.vmap(lambda v: case.call(v, *rest))(values)
    assert torch.equal(got, torch.stack([case.call(v, *rest) for v in values]))


@for_every_operator
def test_per_sample_gradients(op: str) -> None:
    case = make_case(op)
    stacked = [torch.stack([tensor, tensor + 0.1]) for tensor in case.floats]
    positions = tuple(range(len(stacked)))
    got, expected = (torch.vmap(torch.func.grad(loss(case, module), argnums=positions))(*stacked)
                     for module in (ops_dcn, reference))
    assert_same(named(got), named(expected), FLOAT64)


@for_every_operator
def test_jacobian(op: str) -> None:
    case = make_case(op, n=1, groups=1, depth=2)
    got, expected = (torch.func.jacrev(lambda *f, m=module: case.call(*f, module=m))(*case.floats)
                     for module in (ops_dcn, reference))
    torch.testing.assert_close(got, expected)


def test_mapped_levels_are_refused() -> None:
    case = make_case('ms_deform_attn')
    value, shapes, starts, *rest = case.inputs
    with pytest.raises(ValueError, match='spatial_shapes and level_start_index are not valid'):
        torch.vmap(lambda s: ops_dcn.ms_deform_attn(value, s, starts, *rest))(
            torch.stack([shapes, shapes]))


@for_every_operator
def test_second_derivative_raises(op: str) -> None:
    """Even where the first gradient does not depend on a gradient that comes in."""
    case = make_case(op)
    leaves = [tensor.requires_grad_() for tensor in case.floats]
    output = case.call(*leaves)
    grads = torch.autograd.grad(output.sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match=f'{op}_forward cannot be differentiated twice'):
        (output.sum() + sum(grad.square().sum() for grad in grads)).backward()


@for_every_operator
def test_opcheck(op: str) -> None:
    case = make_case(op)
    tensors, options = case.raw()
    grad_output = torch.randn_like(case.call())
    raw = torch.ops.ops_dcn
    torch.library.opcheck(getattr(raw, f'{op}_forward').default, (*tensors, *options))
    torch.library.opcheck(getattr(raw, f'{op}_backward').default,
                          (grad_output, *tensors, *options))


@for_every_operator
def test_compile(op: str) -> None:
    torch.compiler.reset()
    case = make_case(op, stride=(2, 1)) if op in CONVOLUTIONS else make_case(op)
    compiled = torch.compile(case.call, fullgraph=True, backend='aot_eager', dynamic=True)
    leaves = [tensor.requires_grad_() for tensor in case.floats]
    for _ in range(2):
        got, expected = (torch.autograd.grad(call(*leaves).square().sum(), leaves)
                         for call in (compiled, case.call))
        assert_same(named(got), named(expected), FLOAT64)


class Network(nn.Module):
    """Every image module once, NHWC in and NCHW out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ops_dcn.DCNv3(16, group=2, center_feature_scale=True)
        self.second = ops_dcn.DCNv4(16, group=2, dw_kernel_size=3)
        self.third = ops_dcn.DCNv4Conv2d(16, 8, 3, stride=2, padding=1, groups=2)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.2)

    def forward(self, input: Tensor) -> Tensor:
        return self.third(self.second(self.first(input)).permute(0, 3, 1, 2))


@pytest.mark.slow
def test_inductor() -> None:
    torch.compiler.reset()
    network, image = Network(), torch.randn(2, 9, 7, 16)
    compiled = torch.compile(network, fullgraph=True)
    results = []
    for run in (compiled, network):
        leaf = image.clone().requires_grad_()
        run(leaf).square().sum().backward()
        results.append({'out': run(image).detach(), 'grad': leaf.grad})
    assert_same(*results, (1e-4, 1e-5))


def test_export_with_dynamic_shapes() -> None:
    network = Network().eval()
    sizes = {axis: torch.export.Dim(name, min=least, max=512)
             for axis, (name, least) in enumerate((('n', 1), ('h', 3), ('w', 3)))}
    program = torch.export.export(network, (torch.randn(2, 9, 12, 16),), dynamic_shapes=(sizes,))
    for shape in ((3, 8, 7, 16), (2, 31, 3, 16)):
        image = torch.randn(shape)
        assert torch.equal(program.module()(image), network(image))


def test_export_decomposes_into_the_reference() -> None:
    """What an exporter to another runtime does with an operator it does not know."""
    def decomposition(value: Tensor, offset_mask: Tensor, geometry: list[int], scale: float,
                      softmax: bool) -> Tensor:
        pairs = [tuple(geometry[i:i + 2]) for i in range(0, 8, 2)]
        names = ('kernel_size', 'stride', 'padding', 'dilation')
        return reference.dcnv4(value, offset_mask, groups=geometry[8], offset_scale=scale,
                               remove_center=bool(geometry[9]), softmax=softmax,
                               **dict(zip(names, pairs, strict=True)))
    layer = ops_dcn.DCNv4(16, group=2).eval()
    nn.init.normal_(layer.offset_mask.weight)
    size = torch.export.Dim('h', min=2, max=512)
    program = torch.export.export(layer, (torch.randn(1, 6, 5, 16),),
                                  dynamic_shapes=({1: size},))
    program = program.run_decompositions({torch.ops.ops_dcn.dcnv4_forward.default: decomposition})
    assert not any('ops_dcn' in str(node.target) for node in program.graph.nodes)
    image = torch.randn(1, 8, 5, 16)
    torch.testing.assert_close(program.module()(image), layer(image), rtol=1e-4, atol=1e-5)


def test_meta_device_and_deepcopy() -> None:
    network = Network()
    assert copy.deepcopy(network).to('meta')(torch.empty(2, 9, 7, 16, device='meta')).shape == (
        2, 8, 5, 4)
    image = torch.randn(1, 6, 6, 16)
    assert torch.equal(copy.deepcopy(network)(image), network(image))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@for_every_operator
def test_autocast_takes_the_widest_dtype(op: str, dtype: torch.dtype) -> None:
    case = make_case(op, dtype=torch.float32)
    value, *rest = case.floats
    with pytest.raises(ValueError, match=r'\.dtype is not valid'):
        case.call(value.to(dtype), *rest)
    with torch.autocast('cpu', dtype):
        mixed = case.call(value.to(dtype), *rest)
        half = case.call(*(tensor.to(dtype) for tensor in case.floats))
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, case.call(value.to(dtype).float(), *rest))
    assert half.dtype == dtype


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_autocast_of_modules(dtype: torch.dtype) -> None:
    network, image = Network(), torch.randn(2, 6, 6, 16)
    expected = network(image)
    with torch.autocast('cpu', dtype):
        got = network(image)
    assert got.dtype == dtype
    got.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert (got - expected).abs().max() < 0.05 * expected.abs().max()


def test_half_outcome_keeps_dtype() -> None:
    for op in OPERATORS:
        results = outcome(make_case(op, dtype=torch.bfloat16))
        assert {tensor.dtype for tensor in results.values()} == {torch.bfloat16}
