"""Files that are no checkpoint, damaged ones, and ones made to run code."""
from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import tarfile
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import nn

from mmdcn.checkpoints import (
    CheckpointError,
    UnsafeCheckpointError,
    loading,
    loading_policy,
    read_checkpoint,
    save_checkpoint,
)


class Call:
    """Pickles as a call of a function, with an optional state."""

    def __init__(self, function: Callable, *args: object, state: object = None) -> None:
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple:
        return self.call


def touch() -> Call:
    return Call(os.system, 'touch pwned')


class Subclass(nn.Linear):
    """A model class that only its author has."""


HARMFUL = {
    'os.system': touch,
    'eval': lambda: Call(eval, "open('pwned', 'w')"),
    'exec': lambda: Call(exec, "open('pwned', 'w')"),
    'getattr of a history': lambda: Call(getattr, HistoryBuffer, '__init__'),
    'getattr chain': lambda: Call(getattr, Call(getattr, HistoryBuffer, 'min'), '__globals__'),
    'getattr of an array': lambda: Call(getattr, np.ndarray, 'tofile'),
    'call of a history method': lambda: Call(Call(getattr, HistoryBuffer, 'min'), None),
    'objects in an array': lambda: np.array([touch(), None], dtype=object),
    'object scalar': lambda: Call(np.float64(1).__reduce__()[0], np.dtype(object), touch()),
    'history of objects': lambda: HistoryBuffer([touch()], [1]),
    'in a namespace': lambda: Namespace(lr=1.0, device=touch()),
    'in a tuple key': lambda: {(1, touch()): 2},
    'in optimizer state': lambda: {'state': {0: {'step': torch.zeros(1), 'exp_avg': touch()}}},
    'a module': lambda: Subclass(2, 2),
    'a module of torch': lambda: nn.Linear(2, 2),
    'a function': lambda: os.getcwd,
    'torch.load itself': lambda: Call(torch.load, 'evil.pth'),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in an empty folder, in which nothing may appear but what the test writes."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / 'pwned').exists(), 'the file was executed'


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('kind', HARMFUL)
def test_nothing_is_executed(kind, legacy):
    if kind == 'call of a history method':
        Path('evil.pth').write_bytes(_pickled_call_of_a_method())
    else:
        content = {'state_dict': {'a': torch.zeros(2)}, 'optimizer': [HARMFUL[kind]()]}
        torch.save(content, 'evil.pth', _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match='not valid'):
        read_checkpoint('evil.pth')
    with pytest.raises(CheckpointError, match='not valid'):
        CheckpointLoader.load_checkpoint('evil.pth')


def _pickled_call_of_a_method() -> bytes:
    """A zip archive of torch whose pickle calls what ``getattr`` gave."""
    buffer = io.BytesIO()
    torch.save({'a': 1}, buffer)
    code = (b'\x80\x02cbuiltins\ngetattr\ncmmengine.logging.history_buffer\nHistoryBuffer\n'
            b'X\x03\x00\x00\x00min\x86R' b'N\x85R.')
    out = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(out, 'w') as new:
        for name in old.namelist():
            new.writestr(name, code if name.endswith('data.pkl') else old.read(name))
    return out.getvalue()


def test_the_refusal_names_object_risk_and_remedy():
    torch.save({'state_dict': {}, 'args': Call(os.getcwd)}, 'a.pth')
    with pytest.raises(UnsafeCheckpointError) as caught:
        read_checkpoint('a.pth')
    message = str(caught.value)
    for words in ('a.pth', 'an object of type posix.getcwd,', 'not executed', '`trust=True`',
                  'can run any code on this machine'):
        assert words in message
    assert '\n' not in message


def test_arrays_cannot_claim_that_bytes_are_pointers():
    kind = np.dtype('float64')
    state = list(kind.__reduce__()[2])
    state[-1] = 63  # the flags of an array of objects
    forged = Call(np.dtype, 'f8', False, True, state=tuple(state))
    rebuild = np.zeros(1).__reduce__()[0]
    array = Call(rebuild, np.ndarray, (0,), b'b',
                 state=(1, (2,), forged, False, b'\x41' * 16))
    torch.save({'state_dict': {'a': torch.ones(1)}, 'x': array}, 'a.pth')
    value = read_checkpoint('a.pth')['x']
    assert value.dtype == np.float64 and not value.dtype.hasobject and value.tolist() == [
        np.frombuffer(b'\x41' * 8)[0]] * 2


@pytest.mark.parametrize(('shape', 'raw'), [((4,), b'\0' * 8), ((-1,), b'\0' * 8)])
def test_arrays_stay_within_their_bytes(shape, raw):
    array = Call(np.zeros(1).__reduce__()[0], np.ndarray, (0,), b'b',
                 state=(1, shape, np.dtype('f8'), False, raw))
    torch.save({'state_dict': {'a': torch.ones(1)}, 'x': array}, 'a.pth')
    with pytest.raises(CheckpointError, match='cannot be read'):
        read_checkpoint('a.pth')


def test_a_history_does_not_reach_its_class():
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    before = dict(HistoryBuffer._statistics_methods)  # the first one of a process registers them
    history.__dict__['statistics_methods'] = {'mean': 'mine', 'other': 'mine'}

    class Forged:
        def __reduce__(self):
            return HistoryBuffer, (), {'_log_history': np.ones(2), '_count_history': np.ones(2),
                                       'max_length': 5, 'statistics_methods': {'mean': 'mine'}}

    torch.save({'state_dict': {'a': torch.ones(1)}, 'x': Forged()}, 'a.pth')
    assert read_checkpoint('a.pth')['x'].mean() == 1.0
    assert HistoryBuffer._statistics_methods == before


def test_permissions_of_other_packages_do_not_count():
    torch.save({'state_dict': {'a': torch.ones(1)}, 'x': Subclass(2, 2)}, 'a.pth')
    with torch.serialization.safe_globals([Subclass]):
        with pytest.raises(UnsafeCheckpointError, match='Subclass'):
            read_checkpoint('a.pth')
        assert Subclass in torch.serialization.get_safe_globals()


@pytest.mark.parametrize('content', [
    pytest.param(lambda: pickle.dumps(touch()), id='protocol 4'),
    pytest.param(lambda: pickle.dumps(touch(), protocol=2), id='protocol 2'),
    pytest.param(lambda: pickle.dumps(touch(), protocol=0), id='protocol 0'),
])
def test_plain_pickles(content):
    Path('a.pth').write_bytes(content())
    for name in ('a.pth', 'a.safetensors', 'a.index.json'):
        Path(name).write_bytes(content())
        with pytest.raises(CheckpointError, match='not valid'):
            read_checkpoint(name)


def test_pickle_under_the_name_of_safetensors():
    torch.save({'state_dict': {'a': torch.ones(1)}, 'x': touch()}, 'a.safetensors')
    with pytest.raises(UnsafeCheckpointError, match='system'):
        read_checkpoint('a.safetensors')
    torch.save({'a': torch.ones(2)}, 'b.safetensors')
    assert read_checkpoint('b.safetensors')['state_dict']['a'].sum() == 2


def test_old_tar_file():
    with tarfile.open('a.pth', 'w') as tar:
        for name in ('storages', 'tensors', 'pickle'):
            data = pickle.dumps(touch(), protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    with pytest.raises(UnsafeCheckpointError, match=r'legacy \.tar'):
        read_checkpoint('a.pth')


def test_torchscript_archive():
    torch.jit.script(nn.Linear(2, 2)).save('a.pth')
    with pytest.raises(UnsafeCheckpointError, match='TorchScript'):
        read_checkpoint('a.pth')


def test_trust_ends_with_its_block_and_warns(monkeypatch):
    said = []
    monkeypatch.setattr(loading, 'print_log', lambda text, **_: said.append(text))
    torch.save({'state_dict': {'a': torch.ones(1)}, 'x': Call(os.mkdir, 'made')}, 'a.pth')
    with loading_policy(trust=True):
        assert read_checkpoint('a.pth')['state_dict']['a'] == 1
        assert Path('made').is_dir()
        os.rmdir('made')
        CheckpointLoader.load_checkpoint('a.pth')
        assert Path('made').is_dir()
        os.rmdir('made')
    assert said == [
        '`trust=True`: a.pth is unpickled without restrictions and can run any code'] * 2
    with pytest.raises(UnsafeCheckpointError):
        read_checkpoint('a.pth')
    assert not Path('made').exists()


def test_trust_does_not_unpickle_more_than_needed(monkeypatch):
    calls = []
    load = torch.load
    monkeypatch.setattr(torch, 'load', lambda *a, **k: calls.append(k['weights_only']) or
                        load(*a, **k))
    torch.save({'a': torch.ones(1)}, 'a.pth')
    with loading_policy(trust=True):
        read_checkpoint('a.pth')
    assert calls == [True]


def test_cyclic_and_repeated_data():
    cycle: list = [1]
    cycle.append(cycle)
    level: object = (1,)
    for _ in range(60):
        level = (level, level)
    torch.save({'state_dict': {'a': torch.ones(1)}, 'x': cycle, 'y': level}, 'a.pth')
    assert read_checkpoint('a.pth')['x'][1][0] == 1


# Damage.

FORMATS = {
    'zip': lambda state: torch.save({'state_dict': state}, 'a.pth'),
    'legacy': lambda state: torch.save({'state_dict': state}, 'a.pth',
                                       _use_new_zipfile_serialization=False),
    'safetensors': lambda state: save_checkpoint('a.safetensors', state, {'n': 1}),
}


@pytest.mark.parametrize('form', FORMATS)
def test_cut_off_anywhere(form):
    FORMATS[form]({'a': torch.zeros(64), 'b': torch.ones(3, 5)})
    path = next(Path().iterdir())
    whole = path.read_bytes()
    assert read_checkpoint(path)['state_dict']['b'].sum() == 15
    for size in {*range(0, len(whole), max(1, len(whole) // 60)), 1, 8, 9, len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match='cannot be read'):
            read_checkpoint(path)


@pytest.mark.parametrize('form', FORMATS)
def test_flipped_bytes_never_end_in_another_error(form):
    FORMATS[form]({'a': torch.zeros(4), 'b': torch.ones(3, 5)})
    path = next(Path().iterdir())
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert 'state_dict' in read_checkpoint(path)
        except CheckpointError as error:
            assert '\n' not in str(error)


@pytest.mark.parametrize(('content', 'words'), [
    (b'', '0 bytes.*empty'),
    (b'<!DOCTYPE html><html><body>404 Not Found</body></html>', 'web page'),
    (b'\n  <?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', 'web page'),
    (b'{"error": "not found"}', 'web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n', 'git lfs pull'),
    (b'no checkpoint', 'cannot be read'),
    (gzip.compress(b'x', mtime=0), 'gunzip'),
    (bytes(range(256)) * 9, 'cannot be read'),
])
@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_other_files(content, words, name):
    Path(name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f'(?s)cannot be read.*|{words}') as caught:
        read_checkpoint(name)
    assert re.search(words, str(caught.value)) and name in str(caught.value)


def test_folder_and_missing_file():
    os.mkdir('folder')
    save_checkpoint('folder/model.safetensors', {'a': torch.ones(1)})
    with pytest.raises(CheckpointError, match=r'is a folder.*model\.safetensors'):
        read_checkpoint('folder')
    with pytest.raises(CheckpointError, match='expected an existing file'):
        read_checkpoint('absent.pth')
