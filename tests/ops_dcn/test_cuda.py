"""The operators on CUDA devices. Run by ``make test-gpu``; skipped where there is no device."""
from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import ops_dcn
from ops_dcn import _library
from tests.ops_dcn import small_cases
from tests.ops_dcn import test_golden as golden
from tests.ops_dcn.cases import (
    CONVOLUTIONS,
    DTYPES,
    OPERATORS,
    TOLERANCE,
    Case,
    assert_same,
    make_case,
    outcome,
)

pytestmark = pytest.mark.gpu
for_every_operator = pytest.mark.parametrize('op', OPERATORS)
by_dtype = pytest.mark.parametrize('dtype', DTYPES, ids=str)


class OnCuda:
    """ops_dcn's functions for CPU tensors, run on a CUDA device."""

    def __init__(self, device: str = 'cuda') -> None:
        self.device = device

    def __getattr__(self, op: str) -> Callable[..., Tensor]:
        def call(*inputs: Tensor, **options: Any) -> Tensor:
            moved = [tensor.to(self.device) for tensor in inputs]
            return getattr(ops_dcn, op)(*moved, **options).cpu()
        return call


def moved(case: Case, device: str = 'cuda') -> Case:
    tensors = {name: tensor.to(device) for name, tensor in case.tensors.items()}
    return Case(case.op, tensors, case.options)


def random_case(seed: int) -> tuple[Case, torch.dtype]:
    """A problem of odd sizes, in float64, and the dtype to run it in."""
    pick = random.Random(seed)
    torch.manual_seed(seed)
    op, dtype = pick.choice(OPERATORS), pick.choice(DTYPES)
    sizes = {'n': pick.choice([1, 2, 3, 5]), 'groups': pick.randint(1, 5),
             'depth': pick.choice([1, 3, 4, 8, 12, 16, 24, 31, 32, 48, 64])}
    if op not in CONVOLUTIONS:
        shapes = tuple((pick.randint(1, 13), pick.randint(1, 13))
                       for _ in range(pick.randint(1, 5)))
        return make_case(op, queries=pick.randint(1, 90), points=pick.randint(1, 8),
                         shapes=shapes, **sizes), dtype
    kernel = pick.choice([(1, 1), (3, 3), (3, 2), (5, 5), (1, 7)])
    options: dict[str, Any] = {
        'kernel_size': kernel, 'stride': (pick.randint(1, 3), pick.randint(1, 3)),
        'dilation': (pick.randint(1, 2), pick.randint(1, 2)),
        'padding': (pick.randint(0, 2), pick.randint(0, 2)),
        'offset_scale': pick.choice([1.0, 0.5, 2.0]),
        'remove_center': kernel in [(3, 3), (5, 5), (1, 7)] and pick.random() < 0.4}
    if op == 'dcnv4':
        options |= {'softmax': pick.random() < 0.5, 'padded': pick.random() < 0.5}
    return make_case(op, height=pick.randint(11, 40), width=pick.randint(11, 40),
                     spread=pick.choice([0.0, 0.5, 4.0]), **sizes, **options), dtype


def exact_outcome(case: Case) -> dict[str, Tensor]:
    """The CPU's results in float64, in the dtype of the case.

    Where a sample lies within float32's rounding of a grid line, the derivative by its position is
    that of either side: there, and nowhere else, what the CPU gets in the dtype of the case.
    """
    dtype = case.floats[0].dtype
    rtol, atol = TOLERANCE[dtype]
    same, results = outcome(case), {}
    for name, exact in outcome(case.to(torch.float64)).items():
        scale = max(1.0, float(exact.abs().max()))
        close = torch.isclose(same[name].double(), exact, rtol=rtol, atol=atol * scale)
        assert (~close).sum() <= 1e-3 * close.numel() * name.startswith('grad_')
        results[name] = torch.where(close, exact, same[name].double()).to(dtype)
    return results


@golden.in_both
@pytest.mark.parametrize('name', golden.CONVOLUTIONS)
def test_golden_convolution(name: str, dtype: torch.dtype) -> None:
    golden.test_convolution(name, OnCuda(), dtype)


@golden.in_both
@pytest.mark.parametrize('name', golden.ATTENTIONS)
def test_golden_attention(name: str, dtype: torch.dtype) -> None:
    golden.test_attention(name, OnCuda(), dtype)
    golden.test_packed_attention(name, OnCuda(), dtype)


@golden.in_both
@pytest.mark.parametrize('name', golden.MODULES)
def test_golden_module(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    golden.test_module(name, OnCuda(), dtype, monkeypatch)


@golden.in_both
@pytest.mark.parametrize(('op', 'name'), small_cases.CASES)
def test_operator_equals_the_oracle(op: str, name: str, dtype: torch.dtype) -> None:
    small_cases.check(op, name, dtype, OnCuda())


@pytest.mark.parametrize('block', range(10))
def test_500_random_problems_equal_float64_on_the_cpu(block: int) -> None:
    for seed in range(50 * block, 50 * block + 50):
        exact, dtype = random_case(seed)
        # The rounding of the inputs is not what is measured.
        case = exact.to(dtype)
        assert_same(outcome(case, module=OnCuda()), exact_outcome(case), TOLERANCE[dtype])


@by_dtype
@for_every_operator
def test_batch_equals_its_images(op: str, dtype: torch.dtype) -> None:
    case = moved(make_case(op, n=5, depth=12, dtype=dtype))
    whole = case.call()
    for i in range(5):
        assert torch.equal(case.map(lambda t, i=i: t[i:i + 1]).call(), whole[i:i + 1])


@by_dtype
@for_every_operator
def test_deterministic_gradients_repeat(op: str, dtype: torch.dtype) -> None:
    case = moved(make_case(op, n=3, depth=16, dtype=dtype))
    torch.use_deterministic_algorithms(True)
    try:
        runs = [device_outcome(case) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    for run in runs[1:]:
        assert_same(run, runs[0], (0, 0))
    assert_same(runs[0], device_outcome(case), TOLERANCE[dtype])


def device_outcome(case: Case) -> dict[str, Tensor]:
    """Output and gradients of a case whose tensors are on a device."""
    leaves = [tensor.detach().requires_grad_() for tensor in case.floats]
    output = case.call(*leaves)
    grads = torch.autograd.grad(output, leaves, torch.ones_like(output))
    return {'output': output.detach(), **{str(i): grad for i, grad in enumerate(grads)}}


@for_every_operator
def test_second_stream(op: str) -> None:
    case = moved(make_case(op, n=2, depth=16, dtype=torch.float32))
    expected = device_outcome(case)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # Long work before the operator: on any other stream it would read what is not there yet.
        ready = case.map(lambda t: t * torch.nan)
        torch.cuda._sleep(50_000_000)
        for target, source in zip(ready.floats, case.floats, strict=True):
            target.copy_(source)
        got = device_outcome(ready)
    stream.synchronize()
    assert_same(got, expected, TOLERANCE[torch.float32])


@for_every_operator
def test_graph_capture(op: str) -> None:
    case = moved(make_case(op, n=2, depth=16, dtype=torch.float32))
    with torch.no_grad():
        case.call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = case.call()
        for tensor in case.floats:
            tensor.mul_(0.5)
        graph.replay()
        torch.testing.assert_close(output, case.call())


@for_every_operator
def test_graph_capture_of_training(op: str) -> None:
    case = moved(make_case(op, n=2, depth=16, dtype=torch.float32))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        device_outcome(case)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = device_outcome(case)
    for tensor in captured.values():
        tensor.fill_(torch.nan)
    graph.replay()
    assert_same(captured, device_outcome(case), TOLERANCE[torch.float32])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs a second CUDA device')
@for_every_operator
def test_second_device(op: str) -> None:
    case = make_case(op, n=2, depth=16, dtype=torch.float32)
    assert torch.cuda.current_device() == 0
    assert_same(outcome(case, module=OnCuda('cuda:1')), outcome(case), TOLERANCE[torch.float32])
    assert torch.cuda.current_device() == 0


@for_every_operator
def test_level_tensors_may_stay_on_the_host(op: str) -> None:
    case = make_case(op, dtype=torch.float32)
    floats = [tensor.cuda() for tensor in case.floats]
    torch.testing.assert_close(case.call(*floats).cpu(), case.call(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('softmax', [False, True])
def test_slices_are_read_in_place(softmax: bool) -> None:
    case = moved(make_case('dcnv4', depth=8, softmax=softmax, dtype=torch.float32))
    value, packed = case.floats
    both = torch.cat([value, packed], -1).split([value.shape[-1], packed.shape[-1]], -1)
    assert torch.equal(case.call(*both), case.call())


def test_more_than_32_bits_of_elements() -> None:
    """Addresses of a tensor of more than 2^31 elements."""
    n, size, channels = 33, 1024, 64
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip('needs 12 GiB of free GPU memory')
    value = torch.zeros(n, size, size, channels, dtype=torch.float16, device='cuda')
    value[-1] = torch.randn(size, size, channels, device='cuda')
    packed = torch.randn(n, size, size, 32, dtype=torch.float16, device='cuda')
    got = ops_dcn.dcnv4(value, packed, groups=1)[-1:]
    assert torch.equal(got, ops_dcn.dcnv4(value[-1:], packed[-1:], groups=1))


@by_dtype
def test_compiled_module(dtype: torch.dtype) -> None:
    layer = ops_dcn.DCNv4(32, group=2).to('cuda', dtype)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    image = torch.randn(2, 9, 7, 32, device='cuda', dtype=dtype)
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(compiled(image), layer(image), rtol=3e-2, atol=3e-2)


def test_backends_names_the_architectures() -> None:
    assert _library.cuda_problem() == ''
    assert 'sm_' in _library.backends()['cuda']
