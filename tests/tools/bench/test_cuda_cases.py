"""The problems of the CUDA benchmark: their tensors, their names, what they gather."""
from __future__ import annotations

import pytest
import torch

import ops_dcn
from ops_dcn.operators import Convolution, Pyramid
from tools.bench import cuda_cases, rivals


@pytest.fixture(autouse=True)
def _nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, 'find', lambda module, name: None)


def grids(dtype: torch.dtype = torch.float32, spread: float = 1.0) -> list[cuda_cases.Problem]:
    return list(cuda_cases.convolutions(((2, 6, 5, 3, 8), (1, 4, 4, 1, 16)), dtype, spread, 'cpu'))


def kinds(kind: type) -> list[str]:
    return [op for op, operator in ops_dcn.OPERATORS.items() if operator.kind is kind]


def test_every_operator_on_grids_at_every_shape() -> None:
    assert [(problem.shape, problem.op) for problem in grids()] == [
        (shape, op) for shape in ('2x6x5, 3x8', '1x4x4, 1x16') for op in kinds(Convolution)]


def test_tensors_have_the_shape_that_is_told() -> None:
    problem = {problem.op: problem for problem in grids()[:2]}['dcnv3']
    assert [tuple(tensor.shape) for tensor in problem.inputs] == [
        (2, 6, 5, 24), (2, 6, 5, 3 * 9 * 2), (2, 6, 5, 3 * 9)]
    # Four corners of nine points in 60 pixels, 24 channels of four bytes.
    assert problem.gathered == 4 * 9 * 60 * 24 * 4
    half = grids(torch.float16)[0]
    assert half.gathered == 4 * 9 * 60 * 24 * 2
    assert {tensor.dtype for tensor in half.inputs} == {torch.float16}


@pytest.mark.parametrize('spread', [0.5, 1.0, 8.0])
def test_offsets_are_spread_as_asked(spread: float) -> None:
    problem = grids(spread=spread)[0]
    assert problem.op == 'dcnv3'
    # 2 x 6 x 5 x 54 numbers: within five standard errors.
    assert problem.inputs[1].std().item() == pytest.approx(spread, rel=5 / (2 * 3240) ** 0.5)


@pytest.mark.parametrize('name', cuda_cases.PYRAMIDS)
def test_every_pixel_of_a_pyramid_asks(name: str) -> None:
    problems = list(cuda_cases.attentions((name,), torch.float16, 'cpu', batch=1))
    assert [problem.op for problem in problems] == kinds(Pyramid)
    levels = cuda_cases.PYRAMIDS[name]
    pixels = sum(height * width for height, width in levels)
    for problem in problems:
        value, locations = problem.inputs[0], problem.inputs[3]
        assert value.shape == (1, pixels, 8, 32) and locations.shape[:3] == (1, pixels, 8)
        assert problem.shape == f'1x{pixels} queries, 8x32 ({name})'
        assert problem.gathered == 4 * pixels * 4 * len(levels) * 256 * 2


def test_numbers_get_gradients_and_levels_do_not() -> None:
    problem = next(cuda_cases.attentions(('Mask2Former 512',), torch.float32, 'cpu', batch=1))
    assert [tensor.requires_grad for tensor in problem.inputs] == [True, False, False, True, True]
    assert len(problem.leaves) == 3
    assert all(tensor.is_leaf for tensor in problem.leaves)


def test_the_measured_call_is_the_operator() -> None:
    for problem in grids():
        got = problem.calls['ops_dcn'](*problem.inputs)
        assert got.shape == problem.inputs[0].shape
        exact = problem.exact(*[tensor.detach().double() for tensor in problem.inputs])
        torch.testing.assert_close(got.double(), exact, rtol=1e-4, atol=1e-4)


def test_layers_are_compared_at_equal_width() -> None:
    problem, = cuda_cases.modules(((1, 9, 8, 64),), torch.float32, 'cpu')
    assert problem.op == 'module' and problem.shape == '1x9x8x64'
    assert list(problem.calls)[:2] == ['DCNv4', 'DCNv3']
    for name in ('DCNv4', 'DCNv3'):
        assert problem.calls[name].options['groups'] == 64 // 16
    for layer in problem.calls.values():
        assert layer(*problem.inputs).shape == (1, 9, 8, 64)


def test_layers_sample_off_the_grid() -> None:
    problem, = cuda_cases.modules(((1, 9, 8, 64),), torch.float32, 'cpu')
    from mmdcn.analysis.sampling import record_sampling
    for name in ('DCNv4', 'DCNv3'):
        with record_sampling(torch.nn.Sequential(problem.calls[name])) as samplings:
            problem.calls[name](*problem.inputs)
        sampling = samplings['0']
        assert (sampling.points - sampling.grid).abs().mean() > 0.1


def test_no_untuned_shape_is_a_tuned_one() -> None:
    assert not set(cuda_cases.STAGES) & set(cuda_cases.UNTUNED)
    for n, h, w, channels in cuda_cases.MODULES:
        assert channels % 32 == 0, (n, h, w, channels)  # heads of attention, groups of 16
