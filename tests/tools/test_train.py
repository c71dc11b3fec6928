"""Training of every task through the one tool."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdcn.apis import config as tool_config
from mmdcn.checkpoints import read_checkpoint
from tests import tiny
from tests.helpers import ROOT
from tools import train

TASKS = ['classifier', 'detector', 'segmentor']


def run(config: object, work_dir: Path, *options: str) -> dict:
    """Train and give the checkpoint of iteration 4."""
    assert train.main([str(config), '--work-dir', str(work_dir), '--seed', '0', *options]) == 0
    return read_checkpoint(work_dir / 'iter_4.pth')


def same_weights(a: dict, b: dict) -> bool:
    assert a['state_dict'].keys() == b['state_dict'].keys()
    return all(torch.equal(value, b['state_dict'][key]) for key, value in a['state_dict'].items())


@pytest.mark.parametrize('task', TASKS)
def test_writes_checkpoints_and_logs(trained, task):
    work = trained(task).work_dir
    assert (work / 'iter_2.pth').is_file() and (work / f'{task}.py').is_file()
    assert (work / 'last_checkpoint').read_text().endswith('iter_4.pth')
    scalars, = work.glob('*/vis_data/scalars.json')
    steps = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [step['iter'] for step in steps if 'loss' in step] == [1, 2, 3, 4]
    assert list(work.glob('*/vis_data/events.out.tfevents.*'))
    log, = work.glob('*/*.log')
    assert 'eta: ' in log.read_text() and 'System environment' in log.read_text()


def test_summary_line(tmp_path, capsys):
    config = tiny.make_classifier(tmp_path)
    run(config, tmp_path / 'work')
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith('train.py: done in ') and 'iteration 4: accuracy/top1=' in last
    assert 'best_accuracy_top1_iter_4.pth; 0 images skipped; logs in ' in last


def test_console_is_quiet(tmp_path, capsys):
    run(tiny.make_classifier(tmp_path), tmp_path / 'work')
    out, err = capsys.readouterr()
    assert 'System environment' not in out and 'FileClient' not in out and 'OneDL' not in out
    assert not err


def test_seed_decides(trained, tmp_path):
    system = trained('classifier')
    reference = read_checkpoint(system.checkpoint)
    assert reference['meta']['seed'] == 0
    assert same_weights(run(system.config, tmp_path / 'same', '--deterministic'), reference)
    other = run(system.config, tmp_path / 'other', '--seed', '1')
    assert not same_weights(other, reference)
    torch.use_deterministic_algorithms(False)


def test_resume_continues_exactly(trained, tmp_path, capsys):
    system = trained('classifier')
    resumed = run(system.config, tmp_path, '--resume', str(system.work_dir / 'iter_2.pth'))
    assert 'resumed epoch: 0, iter: 2' in capsys.readouterr().out
    reference = read_checkpoint(system.checkpoint)
    assert same_weights(resumed, reference)
    assert resumed['meta']['iter'] == 4
    for key, state in reference['optimizer']['state'].items():
        assert torch.equal(state['momentum_buffer'],
                           resumed['optimizer']['state'][key]['momentum_buffer'])


def test_resume_finds_the_last_checkpoint(tmp_path, capsys):
    config = tiny.make_classifier(tmp_path / 'data')
    run(config, tmp_path / 'work')
    capsys.readouterr()
    options = ['--resume', '--cfg-options', 'train_cfg.max_iters=6']
    assert train.main([str(config), '--work-dir', str(tmp_path / 'work'), *options]) == 0
    assert 'iter: 4' in capsys.readouterr().out
    assert (tmp_path / 'work' / 'iter_6.pth').is_file()


@pytest.mark.parametrize('task', TASKS)
def test_amp_on_cpu(trained, tmp_path, task, monkeypatch):
    used = []
    autocast = torch.autocast
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: used.append((args, kwargs)) or
                        autocast(*args, **kwargs))
    system = trained(task)
    mixed = run(system.config, tmp_path, '--amp')
    assert (('cpu',), {'dtype': torch.bfloat16}) in used
    assert not same_weights(mixed, read_checkpoint(system.checkpoint))
    assert all(value.dtype != torch.bfloat16 for value in mixed['state_dict'].values())


def test_amp_wrapper_of_a_config_becomes_one_that_runs_here(monkeypatch):
    cfg = Config({'optim_wrapper': {'type': 'AmpOptimWrapper', 'loss_scale': 512.0}})
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    tool_config.set_amp(cfg, False)
    assert cfg.optim_wrapper == {'type': 'CpuAmpOptimWrapper'}
    cfg = Config({'optim_wrapper': {'type': 'OptimWrapper'}})
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    tool_config.set_amp(cfg, True)
    assert cfg.optim_wrapper == {'type': 'AmpOptimWrapper', 'loss_scale': 'dynamic'}


def test_auto_scale_lr(trained, tmp_path, capsys):
    run(trained('classifier').config, tmp_path, '--auto-scale-lr')
    # 2 images instead of 16: the rate 0.01 of the last iteration becomes 0.00125.
    assert 'Iter(train) [4/4]  lr: 1.2500e-03' in capsys.readouterr().out


def test_cfg_options_change_values(tmp_path):
    config = tiny.make_classifier(tmp_path)
    cfg = tool_config.load_config(str(config), [
        'train_cfg.max_iters=7', 'optim_wrapper.optimizer.lr=1e-4', 'resume=true',
        'pipeline.1.scale=(8,16)', 'default_scope=mmpretrain', 'load_from=None',
        'train_dataloader.dataset.metainfo.classes=a,b', "val_evaluator={'type': 'Other'}"])
    assert cfg.train_cfg.max_iters == 7 and cfg.optim_wrapper.optimizer.lr == 1e-4
    assert cfg.resume is True and cfg.pipeline[1].scale == (8, 16) and cfg.load_from is None
    assert cfg.train_dataloader.dataset.metainfo.classes == ['a', 'b']
    assert cfg.val_evaluator == {'type': 'Other'}


def test_log_backends_are_completed():
    cfg = Config({'visualizer': {'vis_backends': [{'type': 'mmdet.LocalVisBackend'}]}})
    tool_config.set_log_backends(cfg)
    assert [entry.type for entry in cfg.visualizer.vis_backends] == \
        ['mmdet.LocalVisBackend', 'TensorboardVisBackend']


@pytest.mark.slow
def test_two_processes(tmp_path):
    config = tiny.make_classifier(tmp_path / 'data')
    bad = tmp_path / 'data' / 'train' / 'dark' / '0.jpg'
    bad.write_bytes(bad.read_bytes()[:100])
    env = {**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', 'MASTER_PORT': '29617',
           'CUDA_VISIBLE_DEVICES': ''}
    command = [str(ROOT / 'tools' / 'dist_train.sh'), str(config), '2',
               '--work-dir', str(tmp_path / 'work'), '--skip-bad-images']
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('train.py: done in') == 1
    assert '1 images skipped' in done.stdout
    assert (tmp_path / 'work' / 'iter_4.pth').is_file()


@pytest.mark.parametrize('options', [
    ['val_dataloader=None'],
    ['train_dataloader.persistent_workers=True', 'train_dataloader.prefetch_factor=2',
     'val_dataloader.persistent_workers=True', 'test_dataloader=None'],
])
def test_options_of_data_loaders_that_simply_work(tmp_path, options):
    run(tiny.make_classifier(tmp_path / 'data'), tmp_path / 'work', '--cfg-options', *options)


def test_a_loss_of_nan_is_an_error_unless_skipped(tmp_path, capsys):
    config = tiny.make_classifier(tmp_path / 'data')
    argv = [str(config), '--work-dir', str(tmp_path / 'work'), '--seed', '0', '--cfg-options',
            'optim_wrapper.optimizer.lr=1e30']
    assert train.main(argv) == 2
    out, err = capsys.readouterr()
    assert 'done in' not in out and 'Traceback' not in err
    assert 'NaN or infinite' in err and 'iteration 2' in err and '.jpg' in err
    assert '--cfg-options default_hooks.finite_loss.action=skip' in err
    assert not list((tmp_path / 'work').glob('*.pth'))
    assert train.main([*argv, 'default_hooks.finite_loss.action=skip',
                       'default_hooks.finite_loss.max_in_a_row=2']) == 2
    assert 'iteration 3' in capsys.readouterr().err
