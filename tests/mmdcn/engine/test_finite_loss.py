"""A loss that is not finite stops the run or its batch is skipped."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement

from mmdcn.engine.finite_loss import FiniteLossHook, batch_files, first_not_finite
from mmdcn.errors import UserError
from tests.helpers import ROOT
from tests.mmdcn.data.images import write_images
from tests.mmdcn.engine.conftest import Toy

SIX = dict(type='IterBasedTrainLoop', max_iters=6)


class Poisoned(Toy):
    """Its second loss is not finite for the pictures named; its weights poison themselves."""

    def __init__(self, pictures=(), value=float('nan'), poison=0):
        super().__init__()
        self.pictures, self.value, self.poison, self.seen = pictures, value, poison, []

    def forward(self, inputs=None, data_samples=None, mode='loss', **kwargs):
        name = data_samples[0].img_path[-5]
        self.seen.append(name)
        good = super().forward()['loss']
        if len(self.seen) == self.poison:
            good.register_hook(lambda grad: grad * float('nan'))
        bad = good * (self.value if name in self.pictures else 1.0)
        return {'loss_a': good, 'loss_b': bad, 'loss_c': bad}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'Poisoned', Poisoned)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_the_run_stops_and_keeps_the_last_good_checkpoint(make, tmp_path, value):
    runner = make(model=dict(type='Poisoned', pictures='3', value=value), train_cfg=SIX)
    with pytest.raises(UserError) as caught:
        runner.train()
    text = str(caught.value)
    assert text.startswith('loss is not valid: loss_b is NaN or infinite in iteration 4')
    assert f'{tmp_path}/images/3.jpg' in text and 'iter_2.pth' in text
    assert [path.name for path in (tmp_path / 'work').glob('*.pth')] == ['iter_2.pth']


def test_a_batch_is_skipped_without_an_update(make, tmp_path):
    runner = make(model=dict(type='Poisoned', pictures='1'), train_cfg=SIX,
                  default_hooks=dict(finite_loss=dict(type='FiniteLossHook', action='skip')))
    updates = []
    step = runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    step.step = lambda *args, real=step.step, **options: updates.append(1) or real(
        *args, **options)
    lines = []
    runner.logger.warning = lines.append
    runner.train()
    assert runner.iter == 6 and len(updates) == 4
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())


def test_skipped_batches_are_named(make, caplog):
    runner = make(model=dict(type='Poisoned', pictures='1'), train_cfg=SIX, log_level='WARNING',
                  default_hooks=dict(finite_loss=dict(type='FiniteLossHook', action='skip')))
    said = []
    runner.logger.handle = lambda record: said.append(record.getMessage())
    runner.train()
    lines = [line for line in said if 'batch skipped' in line]
    assert len(lines) == 2 and '1.jpg' in lines[0] and 'iteration 2' in lines[0]


def test_skipping_has_an_end(make):
    runner = make(model=dict(type='Poisoned', pictures='0123'), train_cfg=SIX, default_hooks=dict(
        finite_loss=dict(type='FiniteLossHook', action='skip', max_in_a_row=3)))
    with pytest.raises(UserError, match='in iteration 3'):
        runner.train()


def test_weights_that_are_not_finite_are_not_saved(make, tmp_path):
    """The gradients go first; the loss of that iteration was still finite."""
    runner = make(model=dict(type='Poisoned', poison=4), train_cfg=SIX)
    with pytest.raises(UserError, match=r'first\.weight is NaN or infinite after iteration 4'):
        runner.train()
    assert [path.name for path in (tmp_path / 'work').glob('*.pth')] == ['iter_2.pth']


def test_the_config_may_look_at_nothing(make):
    runner = make(model=dict(type='Poisoned', pictures='3'), train_cfg=SIX,
                  default_hooks=dict(finite_loss=None, checkpoint=None))
    runner.train()
    assert runner.iter == 6


@pytest.mark.parametrize('options', [dict(action='go'), dict(max_in_a_row=0)])
def test_options(options):
    with pytest.raises(UserError, match=next(iter(options))):
        FiniteLossHook(**options)


NAN, ONE = torch.tensor(float('nan')), torch.tensor(1.0)


@pytest.mark.parametrize(('losses', 'first'), [
    (dict(loss=NAN, loss_cls=ONE, loss_box=NAN, loss_mask=NAN), 'loss_box'),
    (dict(loss=NAN), 'loss'), (dict(loss=ONE, loss_cls=ONE, acc=NAN), None), ({}, None),
    (dict(loss_cls=ONE, loss_box=-NAN), 'loss_box'),
])
def test_first_loss_that_is_not_finite(losses, first):
    assert first_not_finite(losses) == first


def test_files_of_a_batch_wherever_they_are():
    a, b, c = (BaseDataElement(metainfo={'img_path': path}) for path in 'abc')
    views = BaseDataElement(metainfo={'img_path': ['d', 'e']})
    batch = dict(inputs=[ONE], data_samples=[a, b], more={'x': (c, views)}, other=3)
    assert list(batch_files(batch)) == list('abcde')


@pytest.mark.slow
def test_all_processes_do_the_same(tmp_path):
    write_images(tmp_path / 'images', 4)
    run = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--standalone',
         '-m', 'tests.mmdcn.engine.two_processes', str(tmp_path)], cwd=ROOT, text=True,
        capture_output=True, env={**os.environ, 'OMP_NUM_THREADS': '1'}, timeout=300)
    assert run.returncode == 0, run.stderr
    stopped, went_on = ([(tmp_path / f'{action}{rank}.txt').read_text() for rank in range(2)]
                        for action in ('stop', 'skip'))
    assert stopped == ['loss_b is NaN or infinite in iteration 2 of process 1'] * 2
    assert went_on == ['iteration 6, weights finite: True'] * 2
