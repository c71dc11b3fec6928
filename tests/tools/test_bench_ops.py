"""The benchmark of the operators: its limits, its records, its messages, without a GPU."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ops_dcn
from ops_dcn.operators import Convolution, Pyramid
from tools import bench_backbone, bench_ops
from tools.bench import cuda_bench, cuda_cases, grid_sample, limits, rivals

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


# Megabytes and microseconds by hand: value + offsets and mask (padded to 8) + output.
@pytest.mark.parametrize(('shape', 'forward_mb', 'forward_us', 'backward_mb', 'l1_us'), [
    ((64, 56, 56, 4, 16), 96.3, 32.1, 167.0, 31.2),
    ((64, 7, 7, 32, 16), 11.8, 3.9, 20.5, 3.9),
    ((1, 200, 320, 4, 16), 30.7, 10.2, 53.2, 9.9)])
def test_limits(shape: tuple[int, ...], forward_mb: float, forward_us: float, backward_mb: float,
                l1_us: float) -> None:
    n, h, w, groups, depth = shape
    value = torch.empty(n, h, w, groups * depth, dtype=torch.float16, device='meta')
    packed = torch.empty(n, h, w, -(-27 * groups // 8) * 8, dtype=torch.float16, device='meta')
    sizes = [limits.compulsory_bytes([value, packed], value, direction)
             for direction in ('forward', 'backward')]
    assert [round(size / 1e6, 1) for size in sizes] == [forward_mb, backward_mb]
    gathered = limits.gathered_bytes(n * h * w, 9, groups * depth, torch.float16)
    memory, l1 = limits.seconds(H100, sizes[0], gathered)
    assert round(1e6 * memory, 1) == forward_us
    assert 1e6 * l1 == pytest.approx(l1_us, abs=0.06)


def test_speeds_of_an_unknown_device_are_measured() -> None:
    device = limits.device_of('Some GPU', 1e12, 10, 1e9)
    assert (device.memory, device.l1, device.source) == (1e12, 1.28e12, 'copy')
    assert limits.device_of('NVIDIA A100-SXM4-80GB', 0, 0, 0).memory == 1.75e12


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


def test_window_attention_covers_every_pixel() -> None:
    layer = rivals._Attention(32, window=7)
    image = torch.randn(1, 9, 8, 32, requires_grad=True)
    layer(image).sum().backward()
    assert layer(image).shape == image.shape
    assert image.grad.abs().sum(-1).gt(0).all()


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_ops, 'REPETITION_S', 0)
    monkeypatch.setattr(bench_ops, 'COPY_BYTES', 1 << 12)
    monkeypatch.setattr(bench_ops, 'SIZES', (
        Convolution(1, 5, 6, groups=4, depth=2), Pyramid(1, ((3, 4), (2, 2)), 2, 4, points=3)))


@pytest.mark.parametrize('without', [None, *ops_dcn.OPERATORS])
def test_table_of_the_cpu(without: str | None, small_sizes: None,
                          monkeypatch: pytest.MonkeyPatch,
                          capsys: pytest.CaptureFixture[str]) -> None:
    """Every operator is in it; one without a form made of grid_sample has no ratio."""
    monkeypatch.delitem(grid_sample.FORMS, without, raising=False)
    assert bench_ops.main(['--quick', '--threads', '1']) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith('%')]
    assert [line.split()[0] for line in lines] == [
        op for op in ops_dcn.OPERATORS for direction in ('forward', 'backward', 'both')]
    for line in lines:
        assert line.count(' ms') == (2 if line.split()[0] in grid_sample.FORMS else 1)


def test_forms_that_differ_end_the_benchmark(small_sizes: None,
                                             monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    right = grid_sample.FORMS['dcnv4']
    monkeypatch.setitem(grid_sample.FORMS, 'dcnv4', lambda *t, **o: right(*t, **o) + 0.1)
    assert bench_ops.main(['--quick', '--ops', 'dcnv4']) == 2
    assert 'dcnv4 is not valid: it differs from its PyTorch form by 0.1' in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_without_a_device_the_tools_end_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    for tool in (bench_ops, bench_backbone):
        assert tool.main(['--device', 'cuda']) == 2
        assert 'torch finds no CUDA device' in capsys.readouterr().err
