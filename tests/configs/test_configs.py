"""Every config builds; every mini system trains, evaluates and predicts for a few iterations."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.registry import MODELS, DefaultScope

from mmdcn.analysis.complexity import build_on_meta
from mmdcn.apis.config import load_config
from mmdcn.checkpoints import read_checkpoint
from tests.helpers import ROOT
from tools import make_mini_data
from tools import test as test_tool
from tools import train as train_tool
from tools.dev import learn

LEAVES = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_model_builds(path: Path) -> None:
    cfg = load_config(str(path))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build_on_meta(lambda: MODELS.build(cfg.model))
    # ConvNeXt is mmpretrain's own class, ResNet mmdet's; every other backbone is ours.
    backbone = model.img_backbone if path.parent.name == 'nuscenes' else model.backbone
    assert type(backbone).__module__.startswith(
        'mmdet.' if '_r50_' in path.stem else ('mmcls_custom.', 'mmdet_custom.', 'mmpretrain.'))
    assert cfg.optim_wrapper.constructor == (
        'DefaultOptimWrapperConstructor' if '_r50_' in path.stem or 'backbone-lr' in path.stem else
        'LayerDecayOptimWrapperConstructor')
    assert {'LocalVisBackend', 'TensorboardVisBackend'} == {
        backend.type for backend in cfg.visualizer.vis_backends}


@pytest.fixture(scope='module')
def mini_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``data/mini`` holds a few images of each set."""
    root = tmp_path_factory.mktemp('run')
    assert make_mini_data.main(['--root', str(root / 'data/mini'), '--scale', '0.05',
                                '--workers', '1', '--sets', *make_mini_data.FORMATS]) == 0
    return root


@pytest.mark.slow
@pytest.mark.parametrize('name', learn.SYSTEMS)
def test_mini_system_runs(name: str, mini_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mini_data)
    system = learn.SYSTEMS[name]
    control = () if isinstance(system.control, str) else system.control
    config, work_dir = str(ROOT / system.config), mini_data / name
    loaders = [f'{loader}.{key}' for loader in ('train_dataloader', 'val_dataloader')
               for key in ('num_workers=0', 'persistent_workers=False')]
    tests = [option.replace('val_', 'test_') for option in loaders if option.startswith('val')]
    assert train_tool.main([config, '--work-dir', str(work_dir), '--seed', '0', '--cfg-options',
                            'train_cfg.max_iters=2', 'train_cfg.val_interval=2', *loaders,
                            *control]) == 0
    checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
    out = work_dir / 'metrics.json'
    assert test_tool.main([config, checkpoint, '--work-dir', str(work_dir / 'test'),
                           '--metrics', str(out), '--cfg-options', *tests, *control]) == 0
    assert system.gates.keys() | system.ceilings.keys() <= set(json.loads(out.read_text()))
    weights = read_checkpoint(checkpoint)['state_dict']
    assert any(key.startswith(('backbone.', 'img_backbone.')) for key in weights)
