"""Evaluation of every task through the one tool."""
from __future__ import annotations

import json
import pickle

import cv2
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tools import test as test_tool

SAMPLES = {'classifier': 6, 'detector': 6, 'segmentor': 4}
METRICS = {'classifier': 'accuracy/top1', 'detector': 'coco/segm_mAP_50', 'segmentor': 'mIoU'}
PICTURES = {'classifier': ['dark/0.jpg', 'light/2.jpg'], 'detector': ['001.jpg', '006.jpg'],
            'segmentor': ['0.jpg', '3.jpg']}


@pytest.mark.parametrize('task', SAMPLES)
def test_metrics_and_pictures(trained, tmp_path, capsys, task):
    system = trained(task)
    out, pictures = tmp_path / 'deep' / 'metrics.json', tmp_path / 'pictures'
    assert test_tool.main([system.config, system.checkpoint, '--work-dir', str(tmp_path / 'work'),
                           '--metrics', str(out), '--show-dir', str(pictures)]) == 0
    metrics = json.loads(out.read_text())
    last = capsys.readouterr().out.splitlines()[-1]
    assert f'{METRICS[task]}={metrics[METRICS[task]]:.4f}' in last
    assert last.startswith('test.py: done in ') and '0 images skipped' in last
    drawn = sorted(str(path.relative_to(pictures)) for path in pictures.rglob('*.jpg'))
    assert len(drawn) == SAMPLES[task] and set(PICTURES[task]) <= set(drawn)
    picture = cv2.imread(str(pictures / drawn[0]))
    # Ground truth and prediction lie side by side; a class is a caption instead.
    assert picture.shape[:2] == ((256, 341) if task == 'classifier' else (48, 128))


def test_metrics_equal_those_of_training(trained, tmp_path):
    system = trained('segmentor')
    out = tmp_path / 'metrics.json'
    assert test_tool.main([system.config, system.checkpoint, '--work-dir', str(tmp_path),
                           '--metrics', str(out)]) == 0
    scalars, = system.work_dir.glob('*/vis_data/scalars.json')
    trained_metrics = json.loads(scalars.read_text().splitlines()[-1])
    assert json.loads(out.read_text())['mIoU'] == pytest.approx(trained_metrics['mIoU'])


def test_predictions(trained, tmp_path):
    system = trained('segmentor')
    out = tmp_path / 'predictions.pkl'
    assert test_tool.main([system.config, system.checkpoint, '--work-dir', str(tmp_path),
                           '--out', str(out)]) == 0
    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == 4 and predictions[0]['pred_sem_seg']['data'].shape == (1, 48, 64)


@pytest.mark.parametrize(('option', 'place', 'words'), [
    ('--out', '{data}/annotations.json', 'annotations.json, which is the input'),
    ('--metrics', '{data}/annotations.json', 'annotations.json, which is the input'),
    ('--out', '{link}/annotations.json', 'annotations.json, which is the input'),
    ('--show-dir', '{data}/images', 'beside the image'),
    ('--show-dir', '{link}/images', 'beside the image')])
def test_data_are_not_written_over(trained, tmp_path, capsys, option, place, words):
    system = trained('detector')
    (tmp_path / 'link').symlink_to(system.data)
    before = {path: path.read_bytes() for path in system.data.rglob('*.*')}
    argv = [system.config, system.checkpoint, '--work-dir', str(tmp_path / 'work')]
    place = place.format(data=system.data, link=tmp_path / 'link')
    assert test_tool.main([*argv, option, place]) == 2
    said = capsys.readouterr().err
    assert f'{option} is not valid' in said and words in said
    assert {path: path.read_bytes() for path in system.data.rglob('*.*')} == before
    assert not (tmp_path / 'work').exists()


def test_predictions_in_the_format_of_coco(trained, tmp_path):
    system = trained('detector')
    out, metrics = tmp_path / 'new' / 'predictions.json', tmp_path / 'metrics.json'
    assert test_tool.main([system.config, system.checkpoint, '--work-dir', str(tmp_path / 'work'),
                           '--out', str(out), '--metrics', str(metrics)]) == 0
    found = json.loads(out.read_text())
    assert {entry['image_id'] for entry in found} == {1, 2, 3, 4, 5, 6}
    assert {entry['category_id'] for entry in found} <= {1, 2}
    assert all(entry['segmentation']['size'] == [48, 64] for entry in found)
    assert list(out.parent.iterdir()) == [out]
    # Scored by COCO's own program, the file gives the metrics of the run.
    truth = COCO(str(system.data / 'annotations.json'))
    for kind in ('bbox', 'segm'):
        judge = COCOeval(truth, truth.loadRes(str(out)), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        expected = json.loads(metrics.read_text())[f'coco/{kind}_mAP']
        assert judge.stats[0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(('name', 'words'), [
    ('x.txt', "expected a name ending in .json (COCO's result format) or .pkl"),
    ('x.json', 'has no CocoMetric, expected a name ending in .pkl; --metrics names the file')])
def test_out_of_another_kind(trained, tmp_path, capsys, name, words):
    system = trained('segmentor')
    assert test_tool.main([system.config, system.checkpoint, '--work-dir', str(tmp_path / 'work'),
                           '--out', str(tmp_path / name)]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_tta(trained, tmp_path, capsys):
    system = trained('segmentor')
    assert test_tool.main([system.config, system.checkpoint, '--work-dir', str(tmp_path),
                           '--tta']) == 0
    out = capsys.readouterr().out
    assert 'mIoU=' in out.splitlines()[-1] and '100.0% of the tensors' in out


def test_amp_on_cpu(trained, tmp_path, monkeypatch):
    system = trained('detector')
    used = []
    autocast = torch.autocast
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: used.append(kwargs) or
                        autocast(*args, **kwargs))
    assert test_tool.main([system.config, system.checkpoint, '--work-dir', str(tmp_path),
                           '--amp']) == 0
    # backbone and neck of six images
    assert used.count({'dtype': torch.bfloat16}) == 12


def test_amp_with_tta_on_cpu(trained, tmp_path, monkeypatch):
    system = trained('segmentor')
    used = []
    autocast = torch.autocast
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: used.append(kwargs) or
                        autocast(*args, **kwargs))
    assert test_tool.main([system.config, system.checkpoint, '--work-dir', str(tmp_path),
                           '--amp', '--tta']) == 0
    # four images, each in two views
    assert used.count({'dtype': torch.bfloat16}) == 8
