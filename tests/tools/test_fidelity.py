"""The fidelity report: its rules, the counts of all rows, and whether the page is in step."""
from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mmdcn.analysis.complexity import Complexity
from mmdcn.analysis.model_zoo import read_zoo, title
from tests.helpers import ROOT
from tools import fidelity

ROWS = [row for row in read_zoo(fidelity.DATA)['rows']
        if row['task'] in sum(fidelity.TASKS.values(), ()) and row['config']]
# One of each kind of network; the others take half a minute more.
QUICK = {'InternImage-T', 'InternImage-H', 'FlashInternImage-L', 'ConvNeXt-B', 'ViT-Ti (DeiT)',
         'ConvNeXt-S (isotropic)', 'ConvNeXt-B + DCNv4', 'ViT-B + DCNv4', 'step 13: LayerNorm'}
PAGE = ROOT / 'docs' / 'fidelity.md'


@cache
def counted(task: str, method: str | None, config: str, size: tuple[int, int],
            options: tuple[str, ...]) -> Complexity:
    """The counts of a row; rows that differ in their recipe alone share them."""
    return fidelity.measure(dict(task=task, method=method, config=config, resolution=size,
                                 options=list(options)))


def not_ours(row: dict[str, Any]) -> tuple[int, int]:
    """Parameters and multiply-adds of the released model that ours leaves out on purpose."""
    if 'DINO' in row.get('method', ''):  # mmdet's of today has more, to encode its reference points
        return -512 * 256, 0
    classes = 150 - 19  # without a pixel of theirs in any picture
    pixels = 1024 * 2048 // 16
    if row['dataset'] in ('Cityscapes', 'Mapillary Vistas'):
        if row['method'] == 'UperNet':
            return classes * (513 + 257), classes * 512 * pixels
        if row['method'] == 'SegFormer head':
            return classes * 257, classes * 256 * pixels
    return 0, 0


def cases(rows: list[dict[str, Any]]) -> list[Any]:
    """Rows as parameters, those of which another of the kind is tested marked as slow."""
    return [pytest.param(row, id=title(row), marks=() if row['model'] in QUICK else
                         pytest.mark.slow) for row in rows]


def result_of(row: dict[str, Any]) -> dict[str, Any]:
    return fidelity.compare(
        row, counted(row['task'], row.get('method'), row['config'], fidelity.input_size(row),
                     tuple(row.get('options', ()))))


@pytest.mark.parametrize('row', cases([row for row in ROWS if 'exact_params' in row]))
def test_counts_are_those_of_the_released_code(row: dict[str, Any]) -> None:
    got = result_of(row)
    params, macs = not_ours(row)
    assert round((got['params']['ours'] + params) / 1e6, 3) == row['exact_params']
    if 'exact_macs' in row:  # the released counter adds norms and biases
        assert (got['macs']['ours'] + macs) / 1e9 == pytest.approx(row['exact_macs'], rel=0.005)


@pytest.mark.parametrize('row', cases(ROWS))
def test_every_row_is_equal_or_explained_and_the_page_says_so(row: dict[str, Any]) -> None:
    got = result_of(row)
    figures = any(name in row for name in ('params', 'macs', 'exact_params'))
    assert got['verdict'] == (
        'explained' if 'explanation' in row else 'equal' if figures else 'no figure')
    lines = [line for line in PAGE.read_text().splitlines()
             if line.startswith(f'| {row["model"]} | {got["resolution"]} |')]
    params, macs = got['params']['ours'] / 1e6, got['macs']['ours'] / 1e9
    assert any(f'| {params:.3f} |' in line and f'| {macs:.3f} |' in line
               and line.endswith(f'| {got["verdict"]} |') for line in lines)
    for text in row.get('explanation', {}).values():
        assert text in PAGE.read_text()


def test_the_page_has_no_other_rows() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith('| ')]
    families = {(row['task'], row['family']) for row in ROWS}
    assert len(lines) == len(ROWS) + 2 * len(families)


@pytest.mark.parametrize(('text', 'low', 'high'), [
    ('30M', 29.5e6, 30.5e6), ('1.08B', 1.075e9, 1.085e9), ('4.5G', 4.45e9, 4.55e9),
    ('4.09G', 4.085e9, 4.095e9), ('1478G', 1477.5e9, 1478.5e9)])
def test_a_printed_figure_stands_for_a_range(text: str, low: float, high: float) -> None:
    assert fidelity.published_range(text) == pytest.approx((low, high), rel=1e-12)


def test_errors_are_counted_from_the_nearest_end() -> None:
    assert fidelity.error_of(10, 9, 11) == 0
    assert fidelity.error_of(8.1, 9, 11) == pytest.approx(-0.1)
    assert fidelity.error_of(12.1, 9, 11) == pytest.approx(0.1)


@pytest.mark.parametrize(('params', 'macs', 'more', 'verdict'), [
    (100_900_000, 5_600_000_000, {}, 'equal'),
    (101_100_000, 5_000_000_000, {}, 'FAILS'),
    (100_000_000, 5_700_000_000, {}, 'FAILS'),
    (100_000_000, 5_700_000_000, dict(explanation=dict(macs='misprint')), 'explained'),
    (101_100_000, 5_700_000_000, dict(explanation=dict(macs='misprint')), 'FAILS'),
    (100_000_000, 5_000_000_000, dict(exact_params=100.6), 'FAILS'),
    (100_000_000, 5_000_000_000, dict(exact_macs=4.8), 'FAILS'),
    (1, 1, dict(params=None, macs=None), 'no figure'),
])
def test_verdicts(params: int, macs: int, more: dict[str, Any], verdict: str) -> None:
    row = dict(dict(params='100M', macs='5G'), **more)
    assert fidelity.compare(row, Complexity(params, macs, {}))['verdict'] == verdict


def test_tool_writes_both_reports_and_fails_where_a_row_does(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    rows = [dict(ROWS[0]), dict(ROWS[0], params='40M', exact_params=40.0)]
    monkeypatch.setattr(fidelity, 'read_zoo', lambda path: dict(rows=rows))
    out, page = tmp_path / 'out.json', tmp_path / 'page.md'
    assert fidelity.main(['--json', str(out), '--write', str(page)]) == 1
    assert [item['verdict'] for item in json.loads(out.read_text())] == ['equal', 'FAILS']
    assert '2 rows: 1 equal, 1 FAILS.' in page.read_text()
    assert 'FAILS' in capsys.readouterr().out


def test_one_task_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(fidelity, 'measure', lambda row: seen.append(row) or Complexity(1, 1, {}))
    out = tmp_path / 'out.json'
    fidelity.main(['--task', 'detection', '--json', str(out)])
    assert seen and {row['task'] for row in seen} == {'detection'}
    assert len(json.loads(out.read_text())) == len(seen)


def test_the_report_is_of_all_tasks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    assert fidelity.main(['--task', 'detection', '--write', str(page)]) == 2
    assert '--write is not valid: got it together with task detection' in capsys.readouterr().err
    assert not page.exists()


def test_a_place_that_cannot_be_written_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert fidelity.main(['--json', str(PAGE / 'out.json')]) == 2
    assert '--json is not valid' in capsys.readouterr().err


@pytest.mark.parametrize(('options', 'words'), [
    (['--json', str(fidelity.DATA)], '--json is not valid: .*which is the input'),
    (['--json', 'x.md', '--write', './x.md'], '--write is not valid: .*as for --json')])
def test_the_data_and_one_another_are_not_written_over(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str],
        words: str) -> None:
    monkeypatch.setattr(fidelity, 'measure', None)
    before = fidelity.DATA.read_bytes()
    assert fidelity.main(options) == 2
    assert re.search(words, capsys.readouterr().err)
    assert fidelity.DATA.read_bytes() == before
