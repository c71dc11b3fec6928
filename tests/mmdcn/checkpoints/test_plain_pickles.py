"""Pickles that torch did not write: arrays by name, and nothing that runs."""
from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdcn.checkpoints import (
    CheckpointError,
    UnsafeCheckpointError,
    loading_policy,
    read_checkpoint,
    unpickling,
)

WEIGHTS = {'stem.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
           'stem.bias': np.asfortranarray(np.ones((2, 2))), 'count': np.array(3)}
# As Python 2 wrote it: {'model': {'a': <float32 [1, 2]>}}, the bytes as a string.
PYTHON_2 = (b"(dp0\nS'model'\np1\n(dp2\nS'a'\np3\ncnumpy.core.multiarray\n_reconstruct\np4\n"
            b"(cnumpy\nndarray\np5\n(I0\ntp6\nS'b'\np7\ntp8\nRp9\n(I1\n(I2\ntp10\n"
            b"cnumpy\ndtype\np11\n(S'f4'\np12\nI0\nI1\ntp13\nRp14\n"
            b"(I3\nS'<'\np15\nNNNI-1\nI-1\nI0\ntp16\nbI00\n"
            b"S'\\x00\\x00\\x80?\\x00\\x00\\x00@'\np17\ntp18\nbss.")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path('pwned').exists()


def write(content: bytes) -> str:
    Path('a.pkl').write_bytes(content)
    return 'a.pkl'


@pytest.mark.parametrize('wrap', [
    lambda weights: {'model': weights, '__author__': 'x', 'matching_heuristics': True},
    lambda weights: weights, lambda weights: OrderedDict(state_dict=OrderedDict(weights))])
@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_by_name(protocol, wrap):
    state = read_checkpoint(write(pickle.dumps(wrap(WEIGHTS), protocol)))['state_dict']
    assert state.keys() == WEIGHTS.keys()
    for key, value in WEIGHTS.items():
        assert state[key].tolist() == value.tolist() and isinstance(state[key], torch.Tensor)


def test_python_2():
    assert read_checkpoint(write(PYTHON_2))['state_dict']['a'].tolist() == [1.0, 2.0]


class Call:
    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('content', [
    lambda: Call(os.mkdir, 'pwned'), lambda: Call(eval, "open('pwned', 'w')"),
    lambda: Call(torch.Tensor, 10 ** 9), lambda: Call(list, b'x' * 9), lambda: Call(set, 'abc'),
    lambda: torch.nn.Linear(1, 1), lambda: np.array([len], dtype=object),
    lambda: Call(getattr, np.ndarray, 'tofile'), lambda: Call(dict, state={'update': 1})])
def test_nothing_runs(content, protocol):
    with pytest.raises(UnsafeCheckpointError, match='not executed'):
        read_checkpoint(write(pickle.dumps({'model': WEIGHTS, 'x': content()}, protocol)))


@pytest.mark.parametrize('code', [
    b'\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__X\x03\x00\x00\x00hex\x85s\x86b.',
    b'\x80\x02cnumpy\nndarray\nN}X\x05\x00\x00\x00valueK\x01s\x86b.',
    b'(dp0\n(icollections\nOrderedDict\n.', b'\x80\x02(cbuiltins\ndict\no.',
    b"\x80\x02X\x01\x00\x00\x00aX\x01\x00\x00\x00b\x85R.", b'\x80\x02\x82\x01.',
    b'(dp0\nPwhere\n.', b'\x80\x02K\x01Q.'])
def test_opcodes_that_change_what_is_called(code):
    before = unpickling._encode.__defaults__, dict(vars(unpickling._Array))
    with pytest.raises(CheckpointError, match='not valid'):
        read_checkpoint(write(code))
    assert (unpickling._encode.__defaults__, dict(vars(unpickling._Array))) == before


def test_cut_off_anywhere():
    whole = pickle.dumps({'model': WEIGHTS})
    for size in range(1, len(whole), 7):
        with pytest.raises(CheckpointError):
            read_checkpoint(write(whole[:size]))


def test_trust_reads_any_pickle():
    path = write(pickle.dumps({'model': WEIGHTS, 'x': Call(os.mkdir, 'pwned'), 'f': len}))
    with loading_policy(trust=True):
        assert read_checkpoint(path)['f'] is len
    Path('pwned').rmdir()


def test_another_protocol_of_torch_is_not_called_cut_off():
    torch.save({'a': torch.ones(1)}, 'a.pth', pickle_protocol=4)
    with pytest.raises(CheckpointError, match='another pickle_protocol than the 2') as caught:
        read_checkpoint('a.pth')
    assert 'cut off' not in str(caught.value)
