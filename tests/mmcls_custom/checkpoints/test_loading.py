"""Safe reading of checkpoints and the report of their match."""
from __future__ import annotations

import os
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from mmcls_custom.checkpoints import CheckpointError, load_state_dict, read_checkpoint


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args) -> None:
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_what_training_saves_is_read(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    saved = {'state_dict': model().state_dict(), 'message_hub': {'loss': history},
             'meta': {'iter': 3, 'dataset_meta': {'palette': np.arange(6).reshape(2, 3),
                                                  'classes': ('a', 'b')}, 'x': np.float32(2.5)},
             'optimizer': torch.optim.AdamW(model().parameters()).state_dict()}
    torch.save(saved, tmp_path / 'a.pth')
    read = read_checkpoint(tmp_path / 'a.pth')
    assert read['message_hub']['loss'].mean() == 1.5
    assert read['meta']['x'] == 2.5
    assert (read['meta']['dataset_meta']['palette'][1] == [3, 4, 5]).all()
    assert read['state_dict'].keys() == saved['state_dict'].keys()


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'state_dict': s}, lambda s: {'model': s},
                                  OrderedDict])
def test_forms_of_a_checkpoint(tmp_path, wrap):
    torch.save(wrap(model().state_dict()), tmp_path / 'a.pth')
    assert '0.weight' in read_checkpoint(tmp_path / 'a.pth')['state_dict']


@pytest.mark.parametrize('evil', [
    Call(os.system, 'touch pwned'), Call(eval, "open('pwned', 'w')"),
    Call(getattr, HistoryBuffer, '__init__'), Call(getattr, np.ndarray, 'tofile'),
])
def test_nothing_is_executed(tmp_path, monkeypatch, evil):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': {}, 'extra': evil}, 'a.pth')
    with pytest.raises(CheckpointError, match='not valid'):
        read_checkpoint('a.pth')
    assert os.listdir() == ['a.pth']


def test_weights_that_a_model_names_itself_are_read_safely(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': {}, 'extra': Call(os.mkdir, 'pwned')}, 'a.pth')
    with pytest.raises(CheckpointError, match='not executed'):
        CheckpointLoader.load_checkpoint('a.pth')
    assert os.listdir() == ['a.pth']
    torch.save(model().state_dict(), 'b.pth')
    target = model()
    load_checkpoint(target, 'b.pth', strict=True)
    assert torch.equal(target[0].weight, torch.load('b.pth')['0.weight'])


def test_unknown_object_is_named(tmp_path):
    torch.save({'state_dict': {}, 'args': Call(os.getcwd)}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'an object of type posix\.getcwd.*not executed'):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize('value', [[1, 2], torch.zeros(3)])
def test_not_a_dictionary(tmp_path, value):
    torch.save(value, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='expected a dictionary of tensors'):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.99])
def test_cut_off_file(tmp_path, share):
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': {'a': torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
    with pytest.raises(CheckpointError, match='cannot be read'):
        read_checkpoint(path)


def test_prefix_of_distributed_training_is_dropped():
    source, target = model(), model()
    state = {f'module.{key}': value for key, value in source.state_dict().items()}
    report = load_state_dict(target, state, source='a.pth')
    assert report.ratio == 1 and not report.unexpected
    assert torch.equal(source[0].weight, target[0].weight)


def test_report_and_unchanged_model():
    target = model()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    state = {'0.weight': torch.zeros(5, 3), '0.bias': torch.ones(4), 'head.weight': torch.ones(1)}
    with pytest.raises(CheckpointError, match='expected at least 99% of the tensors') as caught:
        load_state_dict(target, state, source='a.pth')
    message = str(caught.value)
    assert 'loaded:     1\n' in message and 'missing:    5: 1.weight, 1.bias' in message
    assert 'unexpected: 1: head.weight' in message
    assert 'resized:    1: 0.weight (checkpoint (5, 3), model (4, 3))' in message
    assert 'ratio:      14.3%' in message
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())
    report = load_state_dict(target, state, source='a.pth', min_ratio=0)
    assert report.loaded == ['0.bias'] and torch.equal(target[0].bias, torch.ones(4))
