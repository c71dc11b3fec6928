"""The CUDA benchmark without a CUDA device: its limits, its records, its messages."""
from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ops_dcn
from tools.bench import cuda_bench, cuda_cases, limits

H100 = limits.device_of('NVIDIA H100 80GB HBM3', 0, 0, 0)


class FakeTimer:
    """Runs every call once; each takes a millisecond."""

    repetitions = 1

    def seconds(self, call: Callable[[], Any], cold: bool) -> float:
        call()
        return 1e-3


@pytest.fixture(autouse=True)
def _no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_bench, 'peak_bytes', lambda call: 0)


def small_problems() -> list[cuda_cases.Problem]:
    return [*cuda_cases.convolutions(((2, 6, 5, 2, 8),), torch.float32, 1.0, 'cpu'),
            *cuda_cases.attentions(('Mask2Former 512',), torch.float32, 'cpu', batch=1),
            *cuda_cases.modules(((1, 9, 8, 32),), torch.float32, 'cpu')]


def test_records_table_and_plot(tmp_path: Path) -> None:
    records = []
    for problem in small_problems():
        # Packages of others without CPU kernels are reported, not fatal.
        got = cuda_bench.measure_all(problem, FakeTimer(), H100)
        ours = [r for r in got if r['by'] in ('ops_dcn', 'DCNv4')]
        assert [r['direction'] for r in ours] == ['forward', 'backward']
        assert all(r['ratio'] == 1 for r in ours)
        records += got
    assert {r['op'] for r in records} == {*ops_dcn.OPERATORS, 'module'}
    for record in records:
        if record['by'] == 'ops_dcn':
            assert 0 < record['of_hbm'] < 1
            assert record.get('error', 0) < 1e-5
    assert {'attention (SDPA)', 'window attention 7x7', 'depthwise 7x7',
            'torchvision deform_conv2d', 'DCNv3', 'DCNv4'} <= {r['by'] for r in records}
    lines = cuda_bench.table(records)
    assert len(lines) == len(records) + 2
    assert len({line.count('|') for line in lines}) == 1
    cuda_bench.plot(records, tmp_path / 'plot.png', 'title')
    assert (tmp_path / 'plot.png').stat().st_size > 10_000
    json.dumps(records)


def test_a_rival_that_fails_is_named_with_its_error() -> None:
    problem = next(cuda_cases.convolutions(((1, 4, 4, 1, 8),), torch.float32, 1.0, 'cpu'))

    def broken(*inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError('no such shape\nmore')
    problem.calls['other'] = broken
    records = cuda_bench.measure_all(problem, FakeTimer(), H100)
    assert records[-1]['failed'] == 'RuntimeError: no such shape'


def arguments(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**dict(quick=False, dtypes=['float16'], spread=[1.0]) | changes)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What the benchmark asks the factories of problems for."""
    seen: list[tuple] = []

    def convolutions(shapes: tuple, dtype: torch.dtype, spread: float, device: str) -> list:
        seen.append(('grids', len(shapes), dtype, spread, device))
        return [cuda_cases.Problem('dcnv4', 'shape', [], {}, 1)]

    def others(kind: str) -> Callable[..., list]:
        def make(names: tuple, dtype: torch.dtype, device: str) -> list:
            seen.append((kind, len(names), dtype, device))
            return []
        return make
    monkeypatch.setattr(cuda_cases, 'convolutions', convolutions)
    monkeypatch.setattr(cuda_cases, 'attentions', others('pyramids'))
    monkeypatch.setattr(cuda_cases, 'modules', others('modules'))
    return seen


def test_every_dtype_and_spread_is_measured_at_every_shape(asked: list[tuple]) -> None:
    options = arguments(dtypes=['float16', 'float32'], spread=[0.5, 4.0])
    shapes = [problem.shape for problem in cuda_bench.problems(options)]
    assert shapes == ['shape, offsets 0.5 px', 'shape, offsets 4 px'] * 2
    grids = len(cuda_cases.STAGES + cuda_cases.UNTUNED)
    assert asked == [entry for dtype in (torch.float16, torch.float32) for entry in (
        ('grids', grids, dtype, 0.5, 'cuda'), ('grids', grids, dtype, 4.0, 'cuda'),
        ('pyramids', len(cuda_cases.PYRAMIDS), dtype, 'cuda'),
        ('modules', len(cuda_cases.MODULES), dtype, 'cuda'))]


def test_quick_takes_one_shape_of_each_kind(asked: list[tuple]) -> None:
    list(cuda_bench.problems(arguments(quick=True)))
    assert [entry[1] for entry in asked] == [1, 1, 1]


def one_problem(**changes: Any) -> cuda_cases.Problem:
    """Doubles 1,000 numbers of four bytes."""
    problem = cuda_cases.Problem('double', '10x100', [torch.ones(1000, requires_grad=True)],
                                 {'ops_dcn': lambda x: 2 * x}, 64_000)
    for name, value in changes.items():
        setattr(problem, name, value)
    return problem


def test_limits_of_a_record_by_hand() -> None:
    device = limits.Device('x', 4e6, 16e6, 'copy')
    forward, backward = cuda_bench.measure(one_problem(), 'ops_dcn', FakeTimer(), device)
    # 8,000 bytes at 4 MB/s, 64,000 at 16 MB/s; every call takes a millisecond.
    assert forward['hbm_limit_us'] == pytest.approx(2000)
    assert forward['of_hbm'] == pytest.approx(2)
    assert forward['l1_limit_us'] == pytest.approx(4000) and forward['of_l1'] == pytest.approx(4)
    assert backward['hbm_limit_us'] == pytest.approx(3000) and 'of_l1' not in backward
    assert forward['cold_us'] == forward['warm_us'] == 1000 and forward['dtype'] == 'float32'


def test_devices_of_unknown_clock_are_measured_against_memory_alone() -> None:
    device = limits.device_of('Some GPU', 4e6, 10, 0)
    forward, _ = cuda_bench.measure(one_problem(), 'ops_dcn', FakeTimer(), device)
    assert forward['of_hbm'] == pytest.approx(2) and 'of_l1' not in forward


def test_problems_that_gather_nothing_have_no_limits() -> None:
    records = cuda_bench.measure(one_problem(gathered=0), 'ops_dcn', FakeTimer(), H100)
    assert not any('of_hbm' in record for record in records)


def test_parameters_of_layers_get_gradients_too() -> None:
    layer = torch.nn.Linear(4, 4)
    seen = []

    class Timer(FakeTimer):
        def seconds(self, call: Callable[[], Any], cold: bool) -> float:
            seen.append(call())
            return 1e-3

    image = torch.ones(2, 4, requires_grad=True)
    problem = cuda_cases.Problem('module', '2x4', [image], {'DCNv4': layer}, 0)
    cuda_bench.measure(problem, 'DCNv4', Timer(), H100)
    assert not seen[0].requires_grad  # forward makes no graph
    assert [tuple(grad.shape) for grad in seen[-1]] == [(2, 4), (4, 4), (4,)]


def test_error_is_relative_to_the_largest_exact_value() -> None:
    exact = torch.tensor([0.0, -8.0, 4.0], dtype=torch.float64)
    problem = one_problem(exact=lambda *inputs: exact if inputs[0].dtype is torch.float64 else None)
    assert cuda_bench.largest_error(problem, torch.tensor([2.0, -8.0, 3.0])) == 0.25
    assert cuda_bench.largest_error(one_problem(), torch.zeros(3)) is None


def test_ratios_are_over_our_time_in_the_same_direction() -> None:
    times = iter([1.0, 9, 2, 9, 3.0, 9, 10, 9])  # ours, the other's; cold and warm in turn

    class Timer(FakeTimer):
        def seconds(self, call: Callable[[], Any], cold: bool) -> float:
            return next(times)

    problem = one_problem()
    problem.calls['other'] = problem.calls['ops_dcn']
    records = cuda_bench.measure_all(problem, Timer(), H100)
    assert [record['ratio'] for record in records] == [1, 1, 3, 5]


@pytest.mark.parametrize('name', ['ops_dcn', 'DCNv4', 'DCNv3'])
def test_our_own_failure_ends_the_benchmark(name: str) -> None:
    def broken(*inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError('no such shape')
    with pytest.raises(RuntimeError, match='no such shape'):
        cuda_bench.measure_all(one_problem(calls={name: broken}), FakeTimer(), H100)


def test_rows_of_the_table_hold_what_was_measured() -> None:
    record = {'op': 'dcnv4', 'shape': '1x2', 'by': 'ops_dcn', 'direction': 'forward',
              'dtype': 'float16', 'cold_us': 12.34, 'warm_us': 5.0, 'ratio': 1.0, 'peak_mb': 7.6,
              'of_hbm': 0.715, 'error': 0.00123}
    failed = {'op': 'dcnv4', 'shape': '1x2', 'by': 'other', 'failed': 'OSError: no'}
    rows = [[cell.strip() for cell in line.split('|')][1:-1]
            for line in cuda_bench.table([record, record | {'error': None}, failed])]
    assert {len(row) for row in rows} == {12}
    head, _, first, second, third = rows
    assert dict(zip(head, first, strict=True)) == {
        'operator': 'dcnv4', 'shape': '1x2', 'dtype': 'float16', 'direction': 'forward',
        'by': 'ops_dcn', 'cold, us': '12.3', 'warm, us': '5.0', 'ratio': '1.00', 'of HBM': '72 %',
        'of L1': '', 'peak, MB': '8', 'error': '1.2e-03'}
    assert second[-1] == '' and third[4:6] == ['other', 'OSError: no']


def test_outside_of_a_checkout_there_is_no_commit(tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_bench, 'ROOT', tmp_path)
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
    assert cuda_bench.commit() == ''


def test_a_library_without_cuda_is_refused_before_anything_runs(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_bench._library, 'cuda_problem', lambda: 'it was built without')
    with pytest.raises(ValueError, match='device .*cannot run on CUDA: it was built without'):
        cuda_bench.run(arguments())
