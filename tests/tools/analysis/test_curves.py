"""Curves of one or several runs: joined logs, chosen metrics, the picture, bad folders."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from tools.analysis import curves


def write_log(run: Path, time: str, entries: list[dict], rest: str = '') -> Path:
    """A log as mmengine writes it: a line per entry."""
    path = run / time / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, entries)) + '\n' + rest)
    return path


def training(steps: range, loss: float, **more: float) -> list[dict]:
    return [dict(lr=0.1 / step, loss=loss, loss_cls=loss / 2, iter=step, step=step, **more)
            for step in steps]


@pytest.fixture
def resumed(tmp_path: Path) -> Path:
    """A run that went on from iteration 40 after a kill at 60, and was tested in between."""
    run = tmp_path / 'resumed'
    write_log(run, '20260101_000000', [
        *training(range(10, 50, 10), 4.0), {'mIoU': 30.0, 'aAcc': 70.0, 'time': 0.1, 'step': 40},
        *training(range(50, 70, 10), 3.0)], '{"loss": 2.')
    write_log(run, '20260102_000000', [{'mIoU': 31.0, 'time': 0.1, 'step': 0}])
    write_log(run, '20260103_000000', [
        *training(range(50, 90, 10), 2.0), {'mIoU': float('nan'), 'aAcc': 80.0, 'step': 80}])
    return run


def test_resumed_logs_are_joined(resumed):
    run = curves.read_run(str(resumed))
    assert run.train['loss'] == [(step, 4.0 if step < 50 else 2.0) for step in range(10, 90, 10)]
    assert [step for step, _ in run.metrics['mIoU']] == [40, 80]
    assert set(run.metrics) == {'mIoU', 'aAcc'}


def test_validation_that_counts_epochs_is_at_its_iteration(tmp_path):
    write_log(tmp_path, '1', [entry for epoch in (1, 2) for entry in (
        *training(range(30 * epoch - 20, 30 * epoch + 1, 10), 1.0, epoch=epoch),
        {'accuracy/top1': 50.0 + epoch, 'step': epoch})])
    assert curves.read_run(str(tmp_path)).metrics == {'accuracy/top1': [(30, 51.0), (60, 52.0)]}


def test_picture_and_numbers(resumed, tmp_path, capsys):
    other = tmp_path / 'other'
    write_log(other, '1', [*training(range(10, 30, 10), 5.0), {'coco/bbox_mAP': 0.2, 'step': 20}])
    picture, numbers = tmp_path / 'new' / 'curves.png', tmp_path / 'curves.json'
    assert curves.main([str(resumed), str(other), '--out', str(picture), '--json', str(numbers),
                        '--parts']) == 0
    content = json.loads(numbers.read_text())
    assert set(content['resumed']['loss']) == {'loss', 'loss_cls'}
    assert content['resumed']['metric'] == {'mIoU': {'iteration': [40, 80], 'value': [30.0, None]}}
    assert content['other']['metric'] == {'coco/bbox_mAP': {'iteration': [20], 'value': [0.2]}}
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith('other: loss=5 (iteration 20)')
    assert lines[-1] == f'curves.py: 2 runs; picture in {picture}'
    drawn = cv2.imread(str(picture))
    assert drawn.shape == (1092, 1080, 3)  # three panels
    for colour in ((180, 119, 31), (14, 127, 255)):  # a colour for each run
        assert (drawn == colour).all(-1).sum() > 200


def test_runs_of_one_name_keep_their_paths(tmp_path):
    folders = [str(tmp_path / name / 'run') for name in 'ab']
    assert curves.name_runs(folders) == folders
    assert curves.name_runs(folders[:1]) == ['run']


def test_chosen_metrics(resumed):
    runs = {'it': curves.read_run(str(resumed))}
    assert curves.choose_metrics(runs, []) == {'it': ['mIoU']}
    assert curves.choose_metrics(runs, ['aAcc', 'mIoU']) == {'it': ['aAcc', 'mIoU']}


@pytest.mark.parametrize(('prepare', 'options', 'words'), [
    (lambda run: None, [], 'WORK_DIR is not valid: {run} has no log'),
    (lambda run: write_log(run, '1', [{'mIoU': 1.0, 'step': 0}]), [],
     '{run} has 1 logs without training'),
    (lambda run: write_log(run, '1', [{'loss': 1.0}, *training(range(1, 3), 1.0)]), [],
     "line 1 of {run}/1/vis_data/scalars.json is '{{\"loss\": 1.0}}'"),
    (lambda run: write_log(run, '1', []).write_bytes(b'\xff\xfe\n{}\n'), [], 'cannot be read'),
    (lambda run: write_log(run, '1', [*training(range(1, 3), 1.0), {'mIoU': 1.0, 'step': 2}]),
     ['--metric', 'mIoUs'], '--metric is not valid: got mIoUs, expected one of mIoU; did you mean'),
    (lambda run: write_log(run, '1', training(range(1, 3), 1.0)),
     ['--out', 'curves.txt'], '--out is not valid: got curves.txt'),
    (lambda run: write_log(run, '1', training(range(1, 3), 1.0)),
     ['--json', '{run}/1/vis_data/scalars.json'], 'which is the input')])
def test_bad_input(tmp_path, capsys, prepare, options, words):
    run = tmp_path / 'run'
    prepare(run)
    out = tmp_path / 'curves.png'
    options = [option.format(run=run) for option in options]
    assert curves.main([str(run), '--out', str(out), *options]) == 2
    assert words.format(run=run) in capsys.readouterr().err
    assert not out.exists()
