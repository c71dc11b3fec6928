"""The oracle of loops, and by it the compiled operators and the reference.

None of it needs data from outside: the small cases are drawn when the tests run. Where the golden
files are present they judge the oracle.
"""
from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch

import ops_dcn
from ops_dcn import reference
from tests.ops_dcn import oracle, small_cases, test_golden

FINITE = [(op, name) for op, name in small_cases.CASES
          if name in ('plain', 'asymmetric', 'even', 'no_center', 'one_level')]


@pytest.mark.parametrize(('x', 'y', 'output', 'grad'), [
    # One row of pixels 2, 5, 9: output, and the slope in x and in y.
    (0.5, 0.0, 3.5, (3.0, -3.5)),
    (1.0, 0.0, 5.0, (4.0, -5.0)),  # on a grid line the slope is that of the right
    (2.0, 0.0, 9.0, (-9.0, -9.0)),  # and of what is below, where there is nothing
    (-0.5, 0.0, 1.0, (2.0, -1.0)),
    (-1.0, 0.0, 0.0, (0.0, 0.0)),  # at -1 and at the size a point is outside
    (3.0, 0.0, 0.0, (0.0, 0.0)),
    (1.0, -0.5, 2.5, (2.0, 5.0)),
    (1.0, -1.0, 0.0, (0.0, 0.0)),
    (1.0, 1.0, 0.0, (0.0, 0.0)),
    (math.nan, 0.0, 0.0, (0.0, 0.0)),
    (1.0, -math.inf, 0.0, (0.0, 0.0)),
])
def test_one_sample_by_hand(x: float, y: float, output: float, grad: tuple[float, float]) -> None:
    value = np.array([2.0, 5.0, 9.0]).reshape(1, 1, 3, 1)
    # The kernel's point is at (0, 0), (1, 0) and (2, 0); the last two stay far away.
    offset = np.full((1, 1, 3, 2), 1e9)
    offset[0, 0, 0] = x, y
    got = oracle.dcnv3(value, offset, np.ones((1, 1, 3, 1)), np.ones((1, 1, 3, 1)), groups=1,
                       kernel_size=1, padding=0)
    assert got['output'].ravel().tolist() == [output, 0, 0]
    assert got['grad_offset'].reshape(3, 2).tolist() == [list(grad), [0, 0], [0, 0]]
    assert got['grad_mask'].ravel().tolist() == [output, 0, 0]


def test_order_of_the_points_by_hand() -> None:
    """A kernel of two rows and three columns, whose mask picks one point after the other."""
    value = np.arange(6.0).reshape(1, 2, 3, 1)
    seen = []
    for k in range(6):
        got = oracle.dcnv3(value, np.zeros((1, 1, 1, 12)), np.eye(6)[k].reshape(1, 1, 1, 6),
                           np.ones((1, 1, 1, 1)), groups=1, kernel_size=(2, 3), padding=0)
        seen.append(got['output'].item())
    assert seen == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(('op', 'name'), FINITE)
def test_gradients_are_finite_differences(op: str, name: str) -> None:
    """Of the oracle's own forward, in random directions."""
    case, grad_output, expected = small_cases.draw(op, name)
    random = np.random.default_rng(1)
    for tensor_name, tensor in case.tensors.items():
        if not tensor.is_floating_point():
            continue
        for _ in range(2):
            # A few entries at a time, so that a wrong one shows.
            direction = torch.from_numpy(random.standard_normal(tensor.shape)
                                         * (random.random(tensor.shape) < 0.1))
            step = 1e-6
            outputs = [oracle.outcome(
                case.op, {**case.tensors, tensor_name: tensor.nan_to_num() + sign * direction},
                case.options, grad_output)['output'] for sign in (step, -step)]
            slope = float(((outputs[0] - outputs[1]) * grad_output).sum()) / (2 * step)
            wanted = float((expected[f'grad_{tensor_name}'] * direction).sum())
            assert slope == pytest.approx(wanted, rel=1e-6, abs=1e-6), tensor_name


@pytest.mark.parametrize('name', test_golden.CONVOLUTIONS)
def test_golden_convolution(name: str) -> None:
    test_golden.test_convolution(name, oracle.Functions, torch.float64)


@pytest.mark.parametrize('name', test_golden.ATTENTIONS)
def test_golden_attention(name: str) -> None:
    test_golden.test_attention(name, oracle.Functions, torch.float64)
    test_golden.test_packed_attention(name, oracle.Functions, torch.float64)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('module', [ops_dcn, reference], ids=['compiled', 'reference'])
@pytest.mark.parametrize(('op', 'name'), small_cases.CASES)
def test_operator_equals_the_oracle(op: str, name: str, module: ModuleType,
                                    dtype: torch.dtype) -> None:
    small_cases.check(op, name, dtype, module)


def test_small_cases_hold_what_they_are_for() -> None:
    """Samples on grid lines, at -1 and at the size; positions that are far and not finite."""
    offset = small_cases.draw('dcnv3', 'borders')[0].tensors['offset'].unflatten(-1, (-1, 2))
    pixels = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing='xy'), -1)
    places = (offset + pixels[:, :, None]).flatten(0, -2)
    assert {tuple(place) for place in places.tolist()} == {
        (x, y) for x in small_cases.EDGES for y in small_cases.EDGES}
    whole = small_cases.draw('dcnv4', 'grid_lines')[0].tensors['offset_mask'][..., :18]
    assert torch.equal(whole, whole.round())
    for op, tensor, name in (('dcnv3', 'mask', 'far'), ('ms_deform_attn', 'attention_weights',
                                                        'not_finite')):
        case, _, expected = small_cases.draw(op, name)
        assert not case.tensors[tensor].isfinite().all()
        assert all(result.isfinite().all() for result in expected.values())
        assert expected['output'].any()
    kinds = {name for _, name in small_cases.CASES}
    assert len(small_cases.CASES) == 80 and len(kinds) > 20
