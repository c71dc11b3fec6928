"""Training state as plain data, and the log histories rebuilt from it."""
from __future__ import annotations

from collections import OrderedDict
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmdcn.checkpoints import pack_training_state
from mmdcn.checkpoints.training_state import unpack_training_state


def packed(value):
    checkpoint = {'meta': value}
    pack_training_state(checkpoint)
    return checkpoint['meta']


@pytest.mark.parametrize(('value', 'expected'), [
    (np.float64(0.5), 0.5), (np.float32(2.5), 2.5), (np.int64(3), 3), (np.bool_(True), True),
    (np.str_('a'), 'a'), (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
    (PurePosixPath('/a/b'), '/a/b'), (Path('x/y'), 'x/y'),
    (ConfigDict(a=dict(b=np.int64(1))), {'a': {'b': 1}}),
    (OrderedDict(a=(np.int8(1),)), {'a': (1,)}),
    ([np.float64(1), (Path('a'), [np.int64(2)])], [1.0, ('a', [2])]),
    (None, None), ('text', 'text'),
])
def test_values_become_builtin(value, expected):
    def kinds(item):
        items = item.values() if isinstance(item, dict) else item
        return type(item), [kinds(part) for part in items] if isinstance(
            item, dict | list | tuple) else None

    got = packed(value)
    assert got == expected
    assert kinds(got) == kinds(expected)


def test_tensors_stay_themselves():
    tensor = torch.ones(2)
    assert packed({'x': [tensor]})['x'][0] is tensor


def test_weights_and_optimizer_are_left_alone():
    parts = {key: OrderedDict(a=torch.ones(1))
             for key in ('state_dict', 'ema_state_dict', 'optimizer')}
    checkpoint = dict(parts)
    pack_training_state(checkpoint)
    assert all(checkpoint[key] is part for key, part in parts.items())


@pytest.mark.parametrize(('values', 'counts', 'length'), [
    ([], [], 10), ([1.0, 2.0, 6.0], [1, 2, 1], 1000000), ([1.0, 2.0, 3.0], [1, 1, 1], 2)])
def test_histories_go_through_a_file_and_go_on(tmp_path, values, counts, length):
    saved = HistoryBuffer(values, counts, length)
    checkpoint = {'message_hub': {'log_scalars': OrderedDict(loss=saved), 'runtime_info': {}}}
    pack_training_state(checkpoint)
    torch.save(checkpoint, tmp_path / 'a.pth')
    read = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert not isinstance(read['message_hub']['log_scalars']['loss'], HistoryBuffer)
    unpack_training_state(read)
    history = read['message_hub']['log_scalars']['loss']
    assert type(history) is HistoryBuffer and history.max_length == length
    for got, expected in zip(history.data, saved.data, strict=True):
        assert got.tolist() == expected.tolist()
    for buffer in (saved, history):
        buffer.update(4.0, 2)
    assert history.mean() == saved.mean() and history.max() == saved.max()


@pytest.mark.parametrize('hub', [
    None, 'text', {}, {'log_scalars': None}, {'log_scalars': {'loss': 1.0}},
    {'log_scalars': {'loss': {'log_history': torch.ones(1)}}},
])
def test_what_is_no_packed_history_stays(hub):
    checkpoint = {'message_hub': hub}
    unpack_training_state(checkpoint)
    assert checkpoint == {'message_hub': hub} and checkpoint['message_hub'] is hub
    scalars = hub.get('log_scalars') if isinstance(hub, dict) else None
    assert not any(isinstance(value, HistoryBuffer) for value in (scalars or {}).values())
