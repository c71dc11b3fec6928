"""Checkpoints are whole, pruned late, and found again."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import HOOKS, METRICS

from mmdcn import writing
from mmdcn.checkpoints import DamagedCheckpointError
from mmdcn.engine.build_errors import readable_errors
from mmdcn.engine.saving import CheckpointHook, find_checkpoints, require_checkpoint
from mmdcn.errors import UserError
from tests.helpers import ROOT
from tests.mmdcn.engine import killed_runs

SIX = dict(type='IterBasedTrainLoop', max_iters=6)


def hooks(**options):
    return dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False, **options))


def names(folder):
    return sorted(path.name for path in folder.iterdir()
                  if path.suffix in ('.pth', '.part') or path.name == 'last_checkpoint')


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
    """Folder of the killed runs."""
    root = tmp_path_factory.mktemp('killed')
    subprocess.run([sys.executable, '-m', 'tests.mmdcn.engine.killed_runs', str(root)], cwd=ROOT,
                   check=True)
    return root


@pytest.mark.parametrize(('moment', 'iteration'), killed_runs.MOMENTS.items())
def test_a_killed_run_goes_on(make, killed, tmp_path, moment, iteration, monkeypatch):
    shutil.copytree(killed / moment / 'work', tmp_path / 'work', copy_function=shutil.copy2)
    for left in (tmp_path / 'work').glob('iter_*.pth'):
        torch.load(left, weights_only=True)  # whatever is there is whole
    runner = make(train_cfg=SIX, resume=True, default_hooks=hooks(max_keep_ckpts=1))
    started = []
    train = runner.call_hook
    monkeypatch.setattr(runner, 'call_hook', lambda name, **options: train(name, **options) or (
        started.append(runner.iter) if name == 'before_train' else None))
    runner.train()
    assert started == [iteration]
    assert names(tmp_path / 'work') == ['iter_6.pth', 'last_checkpoint']


@pytest.mark.parametrize('damage', ['cut', 'empty'])
def test_a_damaged_checkpoint_is_passed_over_by_name(make, tmp_path, damage, monkeypatch):
    make(train_cfg=SIX).train()
    newest = tmp_path / 'work' / 'iter_6.pth'
    newest.write_bytes(b'' if damage == 'empty' else newest.read_bytes()[:900])
    again = make(train_cfg=dict(SIX, max_iters=8), resume=True)
    lines = []
    monkeypatch.setattr(again.logger, 'warning', lines.append)
    again.load_or_resume()
    assert again.iter == 4
    line, = (line for line in lines if 'passed over' in line)
    assert 'iter_6.pth' in line and 'cannot be read' in line
    for path in (tmp_path / 'work').glob('iter_*.pth'):
        path.write_bytes(b'')
    with pytest.raises(DamagedCheckpointError, match='iter_6'):
        make(train_cfg=SIX, resume=True).load_or_resume()


def test_a_config_that_resumes_starts_anew_where_there_is_nothing(make, monkeypatch):
    runner, lines = make(resume=True), []
    monkeypatch.setattr(runner.logger, 'warning', lines.append)
    runner.train()
    assert runner.iter == 2 and 'started anew' in lines[0]


def test_a_moved_folder_goes_on(make, tmp_path):
    make(train_cfg=SIX).train()
    (tmp_path / 'work').rename(tmp_path / 'elsewhere')
    moved = make(work_dir=str(tmp_path / 'elsewhere'), train_cfg=dict(SIX, max_iters=8),
                 resume=True)
    moved.train()
    assert moved.iter == 8 and not (tmp_path / 'work').exists()


def first_weight(model):
    return model.first.weight[0, 0].item()


class FirstWeight(BaseMetric):
    """Notes a weight of the model that is evaluated."""

    model = None

    def process(self, data_batch, data_samples):
        self.results.append(first_weight(FirstWeight.model))

    def compute_metrics(self, results):
        return {'first': results[0]}


def test_the_average_of_the_weights_is_evaluated_and_kept(make, tmp_path, monkeypatch):
    monkeypatch.setitem(METRICS.module_dict, 'FirstWeight', FirstWeight)
    runner = make(
        randomness=dict(seed=0),
        train_cfg=dict(SIX, val_interval=6), default_hooks=hooks(), val_cfg=dict(),
        val_dataloader=dict(make.loader(), sampler=dict(type='DefaultSampler', shuffle=False)),
        val_evaluator=dict(type='FirstWeight'),
        custom_hooks=[dict(type='EMAHook', momentum=0.25)])
    FirstWeight.model = runner.model
    average, trained = [first_weight(runner.model)], []
    step = runner.model.train_step

    def train_step(data, optim_wrapper):
        losses = step(data, optim_wrapper)
        trained.append(first_weight(runner.model))
        # The first step replaces the average, which knows nothing yet.
        average.append(0.75 * average[-1] + 0.25 * trained[-1] if len(trained) > 1
                       else trained[0])
        return losses

    runner.model.train_step = train_step
    runner.train()
    kept = torch.load(tmp_path / 'work/iter_6.pth', weights_only=True)
    assert abs(average[-1] - trained[-1]) > 1e-3
    assert runner.last_metrics['first'] == pytest.approx(average[-1], rel=1e-5)
    assert kept['state_dict']['first.weight'][0, 0].item() == pytest.approx(average[-1], rel=1e-5)
    assert kept['ema_state_dict']['module.first.weight'][0, 0].item() == pytest.approx(
        trained[-1], rel=1e-5)


@pytest.mark.parametrize('full', ['iter_4.pth', 'last_checkpoint'])
def test_a_full_disk_ends_the_run_and_loses_nothing(make, tmp_path, monkeypatch, full):
    fsync = os.fsync

    def sync(handle):
        if Path(os.readlink(f'/proc/self/fd/{handle}')).name.startswith('.' + Path(full).stem):
            raise OSError(28, 'No space left on device')
        fsync(handle)

    runner = make(train_cfg=SIX, default_hooks=hooks(max_keep_ckpts=1))
    count = []
    real = writing.os.replace
    monkeypatch.setattr(writing.os, 'replace', lambda *pair: (
        count.append(pair[1].name), real(*pair),
        monkeypatch.setattr(os, 'fsync', sync) if count.count('last_checkpoint') == 1 else None))
    with pytest.raises(UserError, match='No space left'), readable_errors(runner.cfg):
        runner.train()
    kept = names(tmp_path / 'work')
    assert 'iter_2.pth' in kept and not [name for name in kept if name.endswith('.part')]
    assert (tmp_path / 'work' / 'last_checkpoint').read_text().endswith('iter_2.pth')


@METRICS.register_module()
class Scores(BaseMetric):
    """Gives one score after another."""

    def __init__(self, scores):
        super().__init__()
        self.scores = list(scores)

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return {'acc': self.scores.pop(0)}


def evaluated(make, scores, **options):
    """A run of six iterations, evaluated and saved after every second one."""
    loader = dict(make.loader(), sampler=dict(type='DefaultSampler', shuffle=False))
    return dict(train_cfg=dict(SIX, val_interval=2), val_dataloader=loader, val_cfg=dict(),
                val_evaluator=dict(type='Scores', scores=scores),
                default_hooks=hooks(**{'save_best': 'acc', 'rule': 'greater', **options}))


def test_the_best_is_replaced_only_when_the_new_one_is_whole(make, tmp_path, monkeypatch):
    work = tmp_path / 'work'
    seen = []
    real = writing.os.replace
    monkeypatch.setattr(writing.os, 'replace', lambda *pair: (
        seen.append((pair[1].name, [name for name in names(work) if name.startswith('best')])),
        real(*pair)))
    make(**evaluated(make, [0.1, 0.2, 0.15], max_keep_ckpts=2)).train()
    assert names(work) == ['best_acc_iter_4.pth', 'iter_4.pth', 'iter_6.pth', 'last_checkpoint']
    assert ('best_acc_iter_4.pth', ['best_acc_iter_2.pth']) in seen


def test_unknown_metric_is_named_and_the_checkpoint_is_kept(make, tmp_path, monkeypatch):
    monkeypatch.setitem(METRICS.module_dict, 'FirstWeight', FirstWeight)
    runner = make(
        randomness=dict(seed=0),**evaluated(make, [0.1], save_best='mAP'))
    with pytest.raises(UserError, match="got 'mAP', expected a metric of the evaluator: acc"):
        runner.train()
    assert (tmp_path / 'work' / 'iter_2.pth').is_file()


def test_names_in_a_checkpoint_remove_nothing_else(make, tmp_path):
    """What a resumed file calls its older checkpoints is data."""
    make(**evaluated(make, [0.1, 0.2, 0.3])).train()
    work = tmp_path / 'work'
    honest = torch.load(work / 'iter_2.pth', weights_only=True)
    others = [tmp_path / 'best_mine.pth', work / 'mine.pth', work / 'iter_folder.pth' / 'file',
              tmp_path / 'iter_1.pth', work / 'best_folder.pth' / 'file']
    for other in others:
        other.parent.mkdir(exist_ok=True)
        other.write_text('mine')
    for best in (str(others[0]), str(others[1]), '../best_mine.pth', str(others[4].parent), [1]):
        info, resumed = (honest['message_hub'][key] for key in ('runtime_info', 'resumed_keys'))
        info.update(best_ckpt=best, best_score=-1.0,
                    keep_ckpt_ids=['../iter_1', 'folder', '../../1', 1, 2])
        resumed.update(best_ckpt=True, keep_ckpt_ids=True)
        torch.save(honest, work / 'iter_2.pth')
        make(resume=True, load_from=str(work / 'iter_2.pth'),
             **evaluated(make, [0.5, 0.6], max_keep_ckpts=1)).train()
        assert [other.read_text() for other in others] == ['mine'] * len(others)
        assert names(work)[-2:] == ['last_checkpoint', 'mine.pth']


@pytest.mark.parametrize(('files', 'note', 'expected'), [
    (['iter_2', 'iter_10', 'best_acc_iter_12'], None, ['iter_10', 'iter_2']),
    (['iter_2', 'iter_10'], 'iter_10', ['iter_10', 'iter_2']),
    (['iter_2', 'iter_10'], '', ['iter_10', 'iter_2']),
    (['iter_2', 'iter_10'], 'iter_9', ['iter_10', 'iter_2']),
    (['iter_2', 'iter_900'], 'iter_2', ['iter_2']),  # of an earlier run in the same folder
    (['epoch_1', 'epoch_2', 'mine'], 'mine', ['mine']),
    (['run2_4', 'run2_10', 'run2_10-0123abcd', 'run2_10-01234567'], None, ['run2_10', 'run2_4']),
])
def test_order_of_what_can_be_resumed(tmp_path, files, note, expected):
    for name in files:
        (tmp_path / f'{name}.pth').write_text('x')
        os.utime(tmp_path / f'{name}.pth', (1000, 1000))
    if note is not None:
        (tmp_path / 'last_checkpoint').write_text(note and f'/old/place/{note}.pth\n')
    found = find_checkpoints(str(tmp_path))
    assert [Path(path).stem for path in found] == expected


def test_a_checkpoint_later_than_the_note_comes_first(tmp_path):
    for name in ('iter_2', 'iter_4'):
        (tmp_path / f'{name}.pth').write_text('x')
    (tmp_path / 'last_checkpoint').write_text('iter_2.pth')
    os.utime(tmp_path / 'last_checkpoint', (1000, 1000))
    assert [Path(path).stem for path in find_checkpoints(str(tmp_path))] == [
        'iter_4', 'iter_2']


@pytest.mark.parametrize('note', [None, '', 'iter_3.pth'])
def test_nothing_to_resume(tmp_path, note):
    if note is not None:
        (tmp_path / 'last_checkpoint').write_text(note)
    with pytest.raises(UserError, match='holds no checkpoint to continue from') as caught:
        require_checkpoint(str(tmp_path))
    assert caught.value.name == 'resume' and find_checkpoints(str(tmp_path)) == []


def test_mmengine_writes_whole_files(tmp_path, monkeypatch):
    written = []
    real = writing.os.replace
    monkeypatch.setattr(writing.os, 'replace',
                        lambda *pair: (written.append(Path(pair[1]).name), real(*pair)))
    for name in ('a.pkl', 'a.json'):
        mmengine.dump({'a': 1}, tmp_path / 'new' / name)
        assert mmengine.load(tmp_path / 'new' / name) == {'a': 1}
    assert written == ['a.pkl', 'a.json']


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmdet', 'mmseg'])
def test_the_name_in_configs_is_ours(scope):
    with HOOKS.switch_scope_and_registry(scope) as registry:
        assert registry.get('CheckpointHook') is CheckpointHook
