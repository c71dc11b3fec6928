"""The unpickler itself: what becomes plain data, what is refused, and that nothing is called."""
from __future__ import annotations

import io
import os
import pickle
from argparse import Namespace
from collections import OrderedDict, defaultdict
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from torch import nn

from mmdcn.checkpoints.unpickling import unpickle


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


def through(value):
    """The value after a file of torch.save."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return unpickle(buffer)


@pytest.mark.parametrize(('value', 'expected'), [
    (PurePosixPath('/a/b'), '/a/b'), (Path('x/y'), 'x/y'), (PureWindowsPath('x/y'), 'x/y'),
    (defaultdict(list, a=[1]), {'a': [1]}),
    (ConfigDict(a=dict(b=(1, 2))), OrderedDict(a=OrderedDict(b=(1, 2)))),
    (Namespace(lr=0.5, out=Path('z')), Namespace(lr=0.5, out='z')),
    (np.float32(2.5), np.float32(2.5)), (np.str_('cat'), np.str_('cat')),
    (frozenset({1}), frozenset({1})), (slice(1, 2), slice(1, 2)), (b'ab', b'ab'),
])
def test_harmless_classes_become_data(value, expected):
    got = through({'x': [value]})['x'][0]
    assert type(got) is type(expected) and got == expected


def test_stand_ins_are_gone_from_every_depth():
    array, history = np.arange(3.), HistoryBuffer([1.0, 3.0], [1, 1])
    got = through({'a': (array, [Namespace(x=array, y={'h': history})])})['a']
    assert type(got[0]) is np.ndarray and got[0].tolist() == [0, 1, 2]
    assert type(got[1][0].x) is np.ndarray
    assert type(got[1][0].y['h']) is HistoryBuffer and got[1][0].y['h'].mean() == 2


def test_tensors_and_modules_versions():
    state = nn.BatchNorm1d(2).state_dict()
    got = through(state)
    assert got._metadata == state._metadata and got['running_var'].tolist() == [1, 1]


@pytest.mark.parametrize(('value', 'words'), [
    (lambda: Call(os.mkdir, 'made'), r'GLOBAL \S*mkdir'),
    (lambda: Call(eval, "__import__('os').mkdir('made')"), 'eval'),
    (lambda: Call(getattr, HistoryBuffer, '__init__'), 'GLOBAL builtins.getattr is not allowed'),
    (lambda: Call(getattr, np.ndarray, 'tofile'), 'GLOBAL builtins.getattr is not allowed'),
    (lambda: np.array([Call(os.mkdir, 'made')], dtype=object), r'numpy\.dtype\(O8\)|mkdir'),
    (lambda: np.array([None]), r'numpy\.dtype\(O8\)'),
    (lambda: np.dtype([('a', 'f4')]), r'numpy\.dtype\(V4\)'),
    (lambda: np.datetime64('2020-01-01'), r'numpy\.dtype\(M8\)'),
    (lambda: nn.Linear(2, 2), 'Linear'),
    (lambda: os.getcwd, 'getcwd'),
])
def test_the_rest_is_refused_and_not_called(tmp_path, monkeypatch, value, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match=words):
        through({'x': value()})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('value', [{'a': torch.ones(1)}, nn.Linear(2, 2)], ids=['read', 'refused'])
def test_permissions_of_others_do_not_count_and_come_back(value):
    before = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals([nn.Linear]):
        inside = set(torch.serialization.get_safe_globals())
        if isinstance(value, nn.Module):
            with pytest.raises(pickle.UnpicklingError, match='Linear'):
                through(value)
        else:
            assert through(value)['a'] == 1
        assert set(torch.serialization.get_safe_globals()) == inside
    assert set(torch.serialization.get_safe_globals()) == set(before)
