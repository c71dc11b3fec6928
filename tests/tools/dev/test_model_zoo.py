"""The model zoo: data against the reference and the tree, page against the data."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdcn.checkpoints.converters import FAMILIES
from tests.helpers import ROOT, reference_path
from tools.dev import model_zoo

ZOO = model_zoo.read_zoo(model_zoo.DATA)
ROWS = ZOO['rows']


def test_the_page_is_in_step(capsys: pytest.CaptureFixture) -> None:
    assert model_zoo.main(['--check']) == 0, capsys.readouterr().out


def test_check_finds_a_stale_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / 'page.md'
    monkeypatch.setattr(model_zoo, 'PAGE', page)
    assert model_zoo.main(['--check']) == 1
    assert not page.exists()
    assert model_zoo.main([]) == 0
    assert model_zoo.main(['--check']) == 0
    page.write_text(page.read_text().replace('83.5', '83.6'))
    assert model_zoo.main(['--check']) == 1


def test_rows_are_distinct() -> None:
    seen = [json.dumps({k: v for k, v in row.items() if k not in ('metrics', 'note')}) for row in
            ROWS]
    assert len(set(seen)) == len(seen)
    # One file may be tested on two sets.
    weights = [(row['weights'], row['config']) for row in ROWS if 'weights' in row]
    assert len(set(weights)) == len(weights)


def test_every_conversion_exists() -> None:
    for row in ROWS:
        assert row.get('conversion', 'none') in {'none', *FAMILIES}, model_zoo.title(row)
        # There are models that are not built here at all.
        foreign = row['family'] == 'BEVFormer'
        assert ('conversion' in row) == ('weights' in row and not foreign)


def test_every_imagenet_config_has_a_row() -> None:
    named = {row['config'] for row in ROWS}
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / 'configs/imagenet').glob('*.py')}
    assert configs <= named


def test_figures_are_the_published_ones() -> None:
    reference = {row['checkpoint']['name']: row for row in
                 json.loads(reference_path('zoo', 'model_zoo.json').read_text())['rows']
                 if 'checkpoint' in row}
    compared = 0
    metrics_of: dict[str, dict] = {}
    for row in ROWS:
        metrics_of.setdefault(Path(row.get('weights', '')).name, {}).update(row['metrics'])
    for row in ROWS:
        name = Path(row.get('weights', '')).name
        if name not in reference:
            continue
        expected = reference[name]
        compared += 1
        metrics = {'top-1' if k == 'acc@1' else k: v for k, v in expected['metrics'].items()} \
            if 'metrics' in expected else {}
        assert metrics_of[name] == metrics, name
        assert (row.get('params'), row.get('macs')) == (
            expected.get('params'), expected.get('flops')), name
        computed = expected.get('computed', {})
        assert row.get('exact_params') == computed.get('params_M'), name
        assert row.get('exact_macs') == computed.get('gflops'), name
    assert compared > 110


@pytest.mark.parametrize(('change', 'message'), [
    (dict(colour='red'), 'got colour, expected'),
    (dict(config='configs/absent.py'), 'got config configs/absent.py, expected an existing file'),
    (dict(source='hearsay'), 'source hearsay'),
    (dict(task='poetry'), 'got task poetry'),
])
def test_a_wrong_row_is_refused(change: dict, message: str, tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / 'zoo.json'
    data.write_text(json.dumps(dict(ZOO, rows=[dict(ROWS[0], **change)])))
    monkeypatch.setattr(model_zoo, 'DATA', data)
    assert model_zoo.main(['--check']) == 2
    assert message in capsys.readouterr().err


def test_a_missing_field_is_refused(tmp_path: Path) -> None:
    row = {name: value for name, value in ROWS[0].items() if name != 'metrics'}
    data = tmp_path / 'zoo.json'
    data.write_text(json.dumps(dict(ZOO, rows=[row])))
    with pytest.raises(ValueError, match='InternImage-T, 224: got no metrics'):
        model_zoo.read_zoo(data)
