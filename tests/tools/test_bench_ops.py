"""tools/bench_ops.py on a CPU: its cases, its arithmetic, its table, its messages."""
from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

import ops_dcn
from ops_dcn.operators import Convolution, Pyramid
from tools import bench_ops
from tools.bench import grid_sample


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
def test_without_a_device_it_ends_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_ops.main(['--device', 'cuda']) == 2
    assert 'torch finds no CUDA device' in capsys.readouterr().err


@pytest.mark.parametrize(('size', 'text'), [
    (Convolution(8, 56, 28, groups=4, depth=16), '8x56x28, 4x16'),
    (Pyramid(1, ((10, 16), (5, 8)), 8, 32, 4), '200 queries, 8x32, 2 levels')])
def test_label_of_a_size(size: Convolution | Pyramid, text: str) -> None:
    assert bench_ops.label(size) == text


def one_case(op: str) -> bench_ops.Case:
    case, = bench_ops.cases([op], torch.device('cpu'))
    return case


# Bytes by hand, four per number. Grid of 1 x 5 x 6 pixels, 8 channels, 4 groups of 9 points; the
# packed 4 * 27 = 108 numbers are padded to 112. Pyramid of 16 pixels, which all ask, 2 heads of 4
# channels, 2 levels of 3 points.
@pytest.mark.parametrize(('op', 'inputs', 'output'), [
    ('dcnv3', 30 * (8 + 72 + 36), 30 * 8), ('dcnv4', 30 * (8 + 112), 30 * 8),
    ('ms_deform_attn', 16 * (8 + 2 * 6 * 3), 16 * 8),
    ('flash_deform_attn', 16 * (8 + 2 * 6 * 3), 16 * 8)])
def test_bytes_that_no_kernel_can_avoid(small_sizes: None, op: str, inputs: int,
                                        output: int) -> None:
    case = one_case(op)
    assert bench_ops.compulsory_bytes(case, 'forward') == 4 * (inputs + output)
    assert bench_ops.compulsory_bytes(case, 'backward') == 4 * (2 * inputs + output)


def test_both_forms_get_the_same_tensors(small_sizes: None) -> None:
    for op in grid_sample.FORMS:
        case = one_case(op)
        assert list(case.forms) == ['compiled', 'grid_sample']
        got = [case.run(form) for form in case.forms.values()]
        torch.testing.assert_close(*got, rtol=1e-3, atol=1e-3)


def test_candidates_are_forward_without_a_graph_and_backward_alone(
        small_sizes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    case = one_case('dcnv3')
    case.forms = {'compiled': case.forms['compiled']}
    calls = bench_ops.candidates(case)
    assert list(calls) == ['compiled forward', 'compiled backward']
    ran, asked = [], []
    right = case.forms['compiled']
    case.forms['compiled'] = None  # the calls keep the form they were made of
    gradients = torch.autograd.grad

    def watched(output: torch.Tensor, inputs: list[torch.Tensor], *rest: object,
                **options: object) -> tuple[torch.Tensor, ...]:
        asked.append([id(tensor) for tensor in inputs])
        return gradients(output, inputs, *rest, **options)
    monkeypatch.setattr(bench_ops.torch.autograd, 'grad', watched)
    monkeypatch.setattr(case, 'run', lambda form: ran.append((form, torch.is_grad_enabled())))
    for _ in range(2):  # the graph is kept
        for call in calls.values():
            call()
    assert ran == [(right, False)] * 2
    assert asked == [[id(tensor) for tensor in case.inputs]] * 2


@pytest.mark.parametrize('value', [0.1, float('nan'), float('inf')])
def test_a_wrong_value_anywhere_is_a_difference(small_sizes: None, value: float) -> None:
    case = one_case('ms_deform_attn')
    right = case.forms['compiled']

    def wrong(**tensors: torch.Tensor) -> torch.Tensor:
        output = right(**tensors).clone()
        output[0, -1, -1] += value
        return output
    case.forms['compiled'] = wrong
    with pytest.raises(ValueError, match='ms_deform_attn is not valid: it differs'):
        bench_ops.check_agreement(case)
    case.forms['compiled'] = right
    bench_ops.check_agreement(case)


RUNS = {  # seconds per repetition, with one thread and with two
    'compiled forward': {1: [2.0, 3.0, 9.0], 2: [1.0, 2.0, 1.5]},
    'compiled backward': {1: [8.0, 4.0, 1.0], 2: [2.0, 6.0, 4.0]},
    'grid_sample forward': {1: [30.0, 30.0, 60.0], 2: [15.0, 18.0, 30.0]},
    'grid_sample backward': {1: [10.0, 10.0, 10.0], 2: [10.0, 10.0, 10.0]}}


def evaluated(small_sizes: None) -> dict[tuple[str, int], dict]:
    records = bench_ops.evaluate(one_case('dcnv3'), RUNS, {1: 1e-3, 2: 0.5e-3})
    return {(record['direction'], record['threads']): record for record in records}


def test_records_hold_medians_by_hand(small_sizes: None) -> None:
    records = evaluated(small_sizes)
    assert list(records) == list(itertools.product(('forward', 'backward', 'both'), (1, 2)))
    one, two = records['forward', 1], records['forward', 2]
    assert (one['compiled_ms'], one['compiled_min_ms']) == (3000, 2000)
    assert (one['grid_sample_ms'], one['grid_sample_min_ms'], one['ratio']) == (30e3, 30e3, 10)
    assert (two['compiled_ms'], two['ratio'], two['scaling']) == (1500, 12, 2)
    assert one['scaling'] == 1


def test_both_is_summed_within_a_repetition(small_sizes: None) -> None:
    """The median of sums (10, 7, 10), not the sum of the medians, 3 + 4."""
    assert evaluated(small_sizes)['both', 1]['compiled_ms'] == 10_000


def test_share_of_the_copy_bandwidth(small_sizes: None) -> None:
    records = evaluated(small_sizes)
    forward, backward = (4 * 30 * (times * 116 + 8) for times in (1, 2))
    # A copy moves a byte in a millisecond with one thread: so much of the time was needed.
    assert records['forward', 1]['copy_fraction'] == pytest.approx(forward * 1e-3 / 3)
    assert records['backward', 2]['copy_fraction'] == pytest.approx(backward * 0.5e-3 / 4)
    assert records['both', 1]['copy_fraction'] == pytest.approx((forward + backward) * 1e-3 / 10)


def test_a_copy_reads_and_writes_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_ops, 'COPY_BYTES', 1 << 10)
    monkeypatch.setattr(bench_ops, 'set_threads', lambda count: None)
    times = iter([1.0, 4.0, 2.0, 8.0, 8.0, 8.0])
    monkeypatch.setattr(bench_ops, 'timed', lambda call, repeats: call() is None or next(times))
    got = bench_ops.copy_seconds(torch.device('cpu'), [1, 2], 3)
    assert got == {1: 2 / 2048, 2: 8 / 2048}


def test_short_calls_are_timed_several_times(small_sizes: None,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_ops, 'REPETITION_S', 1.0)
    monkeypatch.setattr(bench_ops, 'set_threads', lambda count: None)
    asked = []

    def timed(call: object, repeats: int) -> float:
        asked.append(repeats)
        return 0.3
    monkeypatch.setattr(bench_ops, 'timed', timed)
    runs = bench_ops.measure(one_case('dcnv4'), [1, 2], 2)
    assert set(asked) == {1, 3} and asked.count(3) == 2 * 2 * 4
    assert runs == {name: {1: [0.3] * 2, 2: [0.3] * 2} for name in RUNS}


def test_lines_of_the_table_are_aligned(small_sizes: None,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    records = list(evaluated(small_sizes).values())
    alone = {key: value for key, value in records[0].items()
             if key != 'ratio' and not key.startswith('grid')}
    bench_ops.print_table([records[0], alone])
    head, line, other = capsys.readouterr().out.splitlines()
    assert len(head) == len(line) == len(other)
    assert line.split('  ')[0] == 'dcnv3' and '3000.000 ms' in line and '30000.00 ms' in line
    assert '10.0x' in line and '1.00x' in line
    assert other.count('x') == line.count('x') - 1


def test_json_holds_the_records(small_sizes: None, tmp_path: Path,
                                capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / 'bench.json'
    assert bench_ops.main(['--quick', '--threads', '1', '--ops', 'dcnv4', 'dcnv3',
                           '--json', str(path)]) == 0
    facts = json.loads(path.read_text())
    assert (facts['device'], facts['repetitions']) == ('cpu', 3)
    assert [(record['op'], record['direction']) for record in facts['records']] == list(
        itertools.product(('dcnv3', 'dcnv4'), ('forward', 'backward', 'both')))
    assert 'repetition 3/3' in capsys.readouterr().err


def test_nothing_is_measured_where_the_result_has_no_folder(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_ops, 'cases', None)
    assert bench_ops.main(['--json', f'{__file__}/x.json']) == 2
    assert f'json is not valid: {__file__} is a file' in capsys.readouterr().err
