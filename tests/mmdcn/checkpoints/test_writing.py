"""What is written, in which form, and that no half of it is ever seen under the final name."""
from __future__ import annotations

import os
from types import MappingProxyType

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from mmdcn.checkpoints import CheckpointError, read_checkpoint, save_checkpoint, writing


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


META = {'classes': ('a', 'b'), 'epoch': 3, 'nested': {'x': [1.5, None, True]}, 'note': 'pt'}


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth', '.pt'])
def test_what_is_written_is_read(tmp_path, suffix):
    weights = model().state_dict()
    base = torch.arange(12.).reshape(3, 4)
    weights.update(view=base[1:], turned=base.t(), half=base.half(), scalar=torch.tensor(3))
    path = tmp_path / 'new' / f'a{suffix}'
    save_checkpoint(path, weights, META)
    read = read_checkpoint(path)
    assert {key: read['meta'][key] for key in META} == {**META, 'classes': ['a', 'b']}
    assert read['state_dict'].keys() == weights.keys()
    for key, value in weights.items():
        assert read['state_dict'][key].dtype == value.dtype
        assert torch.equal(read['state_dict'][key], value)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    if suffix != '.safetensors':
        assert torch.load(path, weights_only=True)['meta']['epoch'] == 3


@pytest.mark.parametrize(('name', 'weights', 'meta', 'words'), [
    ('a.pkl', {}, {}, r'ends in \.safetensors'),
    ('a.pth', {'a': [1]}, {}, 'a is a list, expected tensors only'),
    ('a.pth', {}, {'x': {'y': [np.float64(1)]}}, r"meta\['x'\]\['y'\]\[0\].*float64"),
    ('a.safetensors', {}, {'x': object()}, r"meta\['x'\].*object"),
])
def test_what_is_not_written(tmp_path, name, weights, meta, words):
    with pytest.raises(CheckpointError, match=words):
        save_checkpoint(tmp_path / name, weights, meta)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_views_are_written_without_the_rest_of_their_storage(tmp_path, suffix):
    base = torch.zeros(1000, 1000)
    path = tmp_path / f'a{suffix}'
    save_checkpoint(path, {'row': base[0], 'again': base[0], 'column': base[:, 1]})
    assert path.stat().st_size < 20_000
    state = read_checkpoint(path)['state_dict']
    state['row'].fill_(1)
    assert state['again'].sum() == 0 and state['column'].is_contiguous()


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_weights_are_written_without_gradients(tmp_path, suffix):
    weight = nn.Parameter(torch.ones(2))
    save_checkpoint(tmp_path / f'a{suffix}', {'a': weight})
    read = read_checkpoint(tmp_path / f'a{suffix}')['state_dict']['a']
    assert type(read) is torch.Tensor and not read.requires_grad
    assert weight.requires_grad


def test_meta_is_json_in_the_header_of_safetensors(tmp_path):
    save_checkpoint(tmp_path / 'a.safetensors', {'a': torch.ones(1)}, META)
    with safe_open(tmp_path / 'a.safetensors', framework='pt') as file:
        assert file.metadata() == {'classes': '["a", "b"]', 'epoch': '3', 'format': 'pt',
                                   'nested': '{"x": [1.5, null, true]}', 'note': '"pt"'}


def test_meta_of_other_mappings_becomes_builtin(tmp_path):
    save_checkpoint(tmp_path / 'a.pth', {}, {'x': MappingProxyType({1: (2, 3)})})
    assert torch.load(tmp_path / 'a.pth', weights_only=True)['meta'] == {'x': {'1': [2, 3]}}


@pytest.mark.parametrize(('suffix', 'owner', 'name'), [
    ('.pth', torch, 'save'), ('.safetensors', writing, 'save_file'), ('.pth', os, 'replace')])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, suffix, owner, name):
    path = tmp_path / f'a{suffix}'
    save_checkpoint(path, {'a': torch.ones(1)})
    seen = []

    def fail(first, second, **kwargs):
        target = first if name == 'replace' else second
        seen.append(target)
        target.write_bytes(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(OSError, match='disk full'):
        save_checkpoint(path, {'a': torch.zeros(1)})
    assert len(seen) == 1 and seen[0] != path and seen[0].parent == tmp_path
    assert list(tmp_path.iterdir()) == [path]
    assert read_checkpoint(path)['state_dict']['a'] == 1
