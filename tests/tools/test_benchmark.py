"""tools/benchmark.py on a CPU: mini models of every task, comparisons, and what is refused."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from mmdcn.analysis import speed
from mmdcn.apis.config import load_config
from mmdcn.apis.inference import task_scope
from ops_dcn import DCNv4
from tests import tiny
from tests.helpers import ROOT
from tools import benchmark

MINI = sorted((ROOT / 'configs' / 'mini').glob('*.py'))
CLASSIFIER = next(str(path) for path in MINI if path.stem.startswith('flash-internimage'))
DETECTOR = next(str(path) for path in MINI if path.stem.startswith('mask-rcnn_flash'))
QUICK = ['--device', 'cpu', '--size', '64', '64', '--repetitions', '1', '--warmup', '1',
         '--profile-steps', '1']
FEW_BOXES = ['--cfg-options', 'model.test_cfg.rcnn.max_per_img=2',
             'model.test_cfg.rpn.max_per_img=20', 'model.train_cfg.rpn_proposal.max_per_img=20']


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope='module')
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier without deformable operators."""
    return str(tiny.make_classifier(tmp_path_factory.mktemp('tiny') / 'data'))


def run(*arguments: str, folder: Path) -> dict[str, Any]:
    """What the tool writes as JSON."""
    path = folder / 'speed.json'
    assert benchmark.main([*arguments, *QUICK, '--json', str(path)]) == 0
    return json.loads(path.read_text())


def test_there_are_mini_models_of_every_task() -> None:
    scopes = [load_config(str(path)).default_scope for path in MINI]
    assert set(scopes) == {'mmpretrain', 'mmdet', 'mmseg'}


@pytest.mark.parametrize('mode', ['train', 'inference'])
@pytest.mark.parametrize('path', MINI, ids=lambda path: path.stem.partition('-pico')[0])
def test_every_mini_model_in_both_modes(path: Path, mode: str, tmp_path: Path) -> None:
    options = FEW_BOXES if 'rcnn' in path.stem else []
    found = run(str(path), '--mode', mode, '--batch', '2', *options, folder=tmp_path)
    record, = found['records']
    rate, memory = record['images_per_s'], record['memory']
    assert 0 < rate['low'] <= rate['median'] <= rate['high']
    assert record['seconds_per_step']['median'] == pytest.approx(2 / rate['median'])
    assert 4 * record['parameters'] < memory['held'] < memory['peak']
    assert sum(record['shares'].values()) == pytest.approx(1)
    ours = 'internimage' in path.stem
    assert (record['shares'][speed.DEFORMABLE] > 0) == ours
    assert len(record['slowest_modules']) == len(record['slowest_classes']) == benchmark.SLOWEST
    assert found['ratios'] == []
    assert found['options']['mode'] == mode and found['machine']['threads'] == 1
