"""tools/bench_attention.py: what it reports and how it ends."""
from __future__ import annotations

import json

import pytest
import torch

from tools import bench_attention


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(bench_attention, 'LEVELS', ((6, 5), (3, 2)))
    monkeypatch.setattr(bench_attention, 'CHANNELS', 16)
    monkeypatch.setattr(bench_attention, 'QUERIES', {'encoder': None, 'decoder': 4})
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_reports_every_shape_direction_and_number_of_threads(tmp_path, capsys):
    path = tmp_path / 'out.json'
    assert bench_attention.main(['--quick', '--threads', '1', '2', '--json', str(path)]) == 0
    facts = json.loads(path.read_text())
    assert facts['torch'] == torch.__version__
    assert [(r['shape'], r['queries'], r['direction'], r['threads']) for r in facts['records']] == [
        (*shape, direction, threads) for shape in (('encoder', 36), ('decoder', 4))
        for direction in ('forward', 'both') for threads in (1, 2)]
    for record in facts['records']:
        assert record['ratio'] == pytest.approx(record['mmcv_ms'] / record['mmdcn_ms'])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 8
    assert lines[2].split()[:4] == ['encoder', '36', 'forward', '1']


def test_layers_that_differ_end_the_run(monkeypatch, capsys):
    monkeypatch.setattr(bench_attention.MultiScaleDeformableAttention, 'forward',
                        lambda self, query, **others: query)
    assert bench_attention.main(['--quick', '--shapes', 'decoder']) == 2
    assert 'layers is not valid: they differ by' in capsys.readouterr().err


def test_without_mmcv(monkeypatch, capsys):
    monkeypatch.setattr(bench_attention.rivals, 'find', lambda module, name: None)
    assert bench_attention.main(['--quick']) == 2
    assert 'mmcv.ops is not valid: it cannot be imported' in capsys.readouterr().err


@pytest.mark.parametrize(('options', 'words'), [
    (['--threads', '0'], 'threads is not valid: got [0], expected numbers >= 1'),
    (['--json', f'{__file__}/x.json'], 'json is not valid'),
])
def test_options_that_are_not_valid(options, words, capsys):
    assert bench_attention.main(options) == 2
    assert words in capsys.readouterr().err
