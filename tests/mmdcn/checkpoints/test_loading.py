"""What is read, in which form, and from which part of a file."""
from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path, PurePosixPath
from types import ModuleType

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from torch import nn

from mmdcn.checkpoints import (
    CheckpointError,
    loading,
    pack_training_state,
    read_checkpoint,
    save_checkpoint,
)
from mmdcn.checkpoints.converters import tensors_of
from mmdcn.checkpoints.loading import AVERAGED, WRAPPERS, unwrap


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.fixture(params=[True, False], ids=['zip', 'legacy'])
def roundtrip(tmp_path, request):
    """Function that saves an object with torch and reads it back safely."""

    def run(content):
        torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=request.param)
        return read_checkpoint(tmp_path / 'a.pth')

    return run


def training_checkpoint() -> dict:
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    return {
        'state_dict': model().state_dict(),
        'message_hub': {'log_scalars': OrderedDict(loss=history, empty=HistoryBuffer()),
                        'runtime_info': {'best_score': np.float64(0.5)}, 'resumed_keys': {}},
        'meta': {'iter': 3, 'dataset_meta': {'palette': np.arange(6).reshape(2, 3),
                                             'classes': ('a', 'b')}, 'x': np.float32(2.5)},
        'optimizer': torch.optim.AdamW(model().parameters()).state_dict(),
    }


def test_what_mmengine_saves_is_read(roundtrip):
    saved = training_checkpoint()
    read = roundtrip(saved)
    scalars = read['message_hub']['log_scalars']
    assert scalars['loss'].mean() == 1.5 and type(scalars['loss']) is HistoryBuffer
    scalars['loss'].update(3.0)
    assert scalars['loss'].max() == 3.0 and len(scalars['empty'].data[0]) == 0
    assert read['meta']['x'] == 2.5 and read['message_hub']['runtime_info']['best_score'] == 0.5
    palette = read['meta']['dataset_meta']['palette']
    assert type(palette) is np.ndarray and (palette[1] == [3, 4, 5]).all()
    assert read['meta']['dataset_meta']['classes'] == ('a', 'b')
    assert read['state_dict'].keys() == saved['state_dict'].keys()
    assert read['optimizer']['param_groups'] == saved['optimizer']['param_groups']


def test_what_the_runner_packs_needs_no_permissions(tmp_path):
    saved = training_checkpoint()
    pack_training_state(saved)
    torch.save(saved, tmp_path / 'a.pth')
    torch.load(tmp_path / 'a.pth', weights_only=True)
    read = read_checkpoint(tmp_path / 'a.pth')
    history = read['message_hub']['log_scalars']['loss']
    assert type(history) is HistoryBuffer and history.data[0].tolist() == [1.0, 2.0]
    assert history.max_length == 1000000 and history.mean() == 1.5
    assert read['meta']['dataset_meta'] == {'palette': [[0, 1, 2], [3, 4, 5]],
                                            'classes': ('a', 'b')}
    assert type(read['message_hub']['runtime_info']['best_score']) is float


@pytest.mark.parametrize('array', [
    np.array(3.5), np.zeros((0, 2), np.int16), np.asfortranarray(np.arange(6.).reshape(2, 3)),
    np.array([True, False]), np.array(['cat', 'tree']), np.arange(3, dtype='>i4'),
    np.array([1 + 2j], np.complex64), np.array([b'ab'])])
def test_arrays(roundtrip, array):
    read = roundtrip({'state_dict': {'a': torch.ones(1)}, 'x': array, 'y': [(array,)]})
    assert read['x'].dtype == array.dtype and read['x'].shape == array.shape
    assert (read['x'] == array).all() and read['x'].flags.writeable
    assert (read['y'][0][0] == array).all()


def test_harmless_classes_become_plain_data(roundtrip, monkeypatch):
    class CfgNode(dict):
        """As yacs has it: a dictionary with attributes."""

    yacs = ModuleType('yacs.config')
    CfgNode.__module__, CfgNode.__qualname__, yacs.CfgNode = 'yacs.config', 'CfgNode', CfgNode
    monkeypatch.setitem(sys.modules, 'yacs', ModuleType('yacs'))
    monkeypatch.setitem(sys.modules, 'yacs.config', yacs)
    node = CfgNode(MODEL=CfgNode(DEPTHS=[4, 4]), LR=np.float64(0.1))
    node.__dict__['_immutable'] = True
    counts = defaultdict(list)
    counts['a'].append(1)
    read = roundtrip({'model': {'a': torch.ones(1)}, 'config': node,
                      'args': Namespace(lr=0.1, out=PurePosixPath('/a/b'), mean=np.ones(2)),
                      'cfg': ConfigDict(a=dict(b=1)), 'counts': counts, 'more': Counter('aab'),
                      'folder': Path('x/y'), 'betas': (0.9, slice(1, 2), {3}),
                      'dtype': torch.bfloat16, 'size': torch.Size([2])})
    assert read['config'] == {'MODEL': {'DEPTHS': [4, 4]}, 'LR': 0.1}
    assert type(read['config']) is OrderedDict
    assert read['args'].lr == 0.1 and read['args'].out == '/a/b' and read['args'].mean.sum() == 2
    assert read['cfg'] == {'a': {'b': 1}} and read['counts'] == {'a': [1]}
    assert read['folder'] == 'x/y' and read['betas'] == (0.9, slice(1, 2), {3})
    assert read['dtype'] is torch.bfloat16 and read['size'] == (2,)


@pytest.mark.parametrize('wrap', [
    lambda s: s, lambda s: {'state_dict': s}, lambda s: {'model': s}, OrderedDict,
    lambda s: {'module': s, 'epoch': 3}, lambda s: {'model_ema': s},
    lambda s: {'module.' + key: value for key, value in s.items()},
    lambda s: {'state_dict': s, 'model_ema': {'x': torch.ones(1)}},
    lambda s: {'model': {'x': torch.ones(1)}, 'model_ema': s},
    lambda s: {'model': s, 'module': {'x': torch.ones(1)}},
    lambda s: {'state_dict': {}, 'model': s}, lambda s: {'model': 'resnet', 'state_dict': s},
    lambda s: {**s, **{'ema_' + key.replace('.', '_'): value for key, value in s.items()}},
    *((lambda s, name=name: {name: s, 'epoch': 3, 'optimizer': {'state': {}}})
      for name in WRAPPERS),
    *((lambda s, name=name: {name: s, 'model': {'x': torch.ones(1)}, 'net': {'x': torch.ones(1)}})
      for name in AVERAGED),
    lambda s: {'state_dict': s, 'state_dict_ema': {'x': torch.ones(1)}},
    lambda s: {'state_dict': s, 'ema_state_dict': {'x': torch.ones(1)}},
    lambda s: {'params': {'x': torch.ones(1)}, 'params_ema': s},
    lambda s: {'ema': {'module': s, 'updates': 3}, 'model': {'x': torch.ones(1)}},
    lambda s: {'ema': {'decay': torch.tensor(0.9)}, 'model': s},
    lambda s: {'ema': {'steps': torch.tensor(3), 'module': s}, 'model': {'x': torch.ones(1)}},
    lambda s: {'ema': {'module': {'model_state': {'net': s}}}}, lambda s: {'ema': {}, 'net': s},
    lambda s: {'ema': 0.999, 'params': 7, 'module': None, 'model_state_dict': s},
    lambda s: {'_orig_mod.' + key: value for key, value in s.items()},
    lambda s: {'module._orig_mod.' + key: value for key, value in s.items()},
    lambda s: {'_orig_mod.module.' + key: value for key, value in s.items()},
    lambda s: {key.replace('.', '._orig_mod.', 1): value for key, value in s.items()},
    lambda s: {'model': {key: value.numpy() for key, value in s.items()}, '__author__': 'x'},
    lambda s: {key: value.numpy() for key, value in s.items()},
])
def test_where_the_weights_are(roundtrip, wrap):
    weights = model().state_dict()
    assert roundtrip(wrap(weights))['state_dict'].keys() == weights.keys()


def test_which_weights_are_taken_is_said(roundtrip, monkeypatch):
    said = []
    monkeypatch.setattr(loading, 'print_log', lambda text, **_: said.append(text))
    weights = model().state_dict()
    roundtrip({'state_dict': weights, 'epoch': 1})
    assert not said
    roundtrip({'model': weights, 'ema': {'module': weights}, 'net': weights})
    assert len(said) == 1 and said[0].endswith(
        'a.pth: the weights are those of ema.module, not of model, net')


@pytest.mark.parametrize('content', [
    {'teacher': {'a': torch.ones(1)}, 'student': {'a': torch.ones(1)}},
    {'student': 3, 'teacher': {}, 'state_dict': {}}, {'teacher': {}, 'student': {}, 'model': [1]}])
def test_files_without_weights_name_their_keys(roundtrip, content):
    with pytest.raises(CheckpointError, match='its keys: (teacher, student|student, teacher)') as e:
        roundtrip(content)
    assert 'state_dict_ema, params_ema, ema' in str(e.value) and 'cut off' not in str(e.value)


@pytest.mark.parametrize('meta', [[1], 'text', 7, torch.ones(1)])
def test_meta_that_is_no_dictionary(roundtrip, meta):
    with pytest.raises(CheckpointError, match=r'the meta of .*a\.pth is a '):
        roundtrip({'state_dict': model().state_dict(), 'meta': meta})


def test_no_meta_and_configs_are_left_out(roundtrip):
    weights = model().state_dict()
    assert 'meta' not in roundtrip({'state_dict': weights, 'meta': None})
    hub = {'runtime_info': {'cfg': 'import os', 'best': 1}, 'log_scalars': {}, 'resumed_keys': {}}
    content = {'state_dict': weights, 'meta': {'cfg': 'import os', 'config': 'x', 'epoch': 3},
               'message_hub': hub}
    read = roundtrip(content)
    assert read['meta'] == {'epoch': 3} and read['message_hub']['runtime_info'] == {'best': 1}


@pytest.mark.parametrize('array', [np.arange(3, dtype='>i4'), np.float16([1, 2]), np.array(2.0),
                                   np.asfortranarray(np.arange(6.).reshape(2, 3))])
def test_arrays_become_weights(roundtrip, array):
    weight = roundtrip({'model': {'a': array, 'b': np.array(['x'])}})['state_dict']['a']
    assert weight.tolist() == array.tolist() and weight.is_contiguous()


def test_names_that_only_look_like_averages_stay(roundtrip):
    weights = {'ema_scale': torch.ones(1), 'ema.weight': torch.ones(1)}
    assert roundtrip(weights)['state_dict'].keys() == weights.keys()


def test_versions_of_modules_are_kept(roundtrip):
    assert roundtrip(model().state_dict())['state_dict']._metadata['1'] == {'version': 2}


@pytest.mark.parametrize('value', [[1, 2], torch.zeros(3), 'text', None])
def test_not_a_dictionary(roundtrip, value):
    with pytest.raises(CheckpointError, match='expected a dictionary of tensors'):
        roundtrip(value)


# safetensors.

def write_shards(folder: Path, suffix: str) -> Path:
    for i, key in enumerate(('a', 'b')):
        state = {key: torch.full((2,), float(i))}
        save_checkpoint(folder / f'm-{i}.safetensors', state) if suffix == 'safetensors' \
            else torch.save(state, folder / f'm-{i}.bin')
    places = {key: f'm-{i}.{suffix}' for i, key in enumerate(('a', 'b'))}
    path = folder / 'm.index.json'
    path.write_text(json.dumps({'metadata': {'total_size': 16}, 'weight_map': places}))
    return path


@pytest.mark.parametrize('suffix', ['safetensors', 'bin'])
def test_several_files(tmp_path, suffix):
    read = read_checkpoint(write_shards(tmp_path, suffix))
    assert read['meta'] == {'total_size': 16}
    assert {key: value.tolist() for key, value in read['state_dict'].items()} == {
        'a': [0.0, 0.0], 'b': [1.0, 1.0]}


@pytest.mark.parametrize(('change', 'words'), [
    (lambda places: places.update(c='m-0.safetensors'), 'names c in m-0.safetensors'),
    (lambda places: places.update(c='../m-0.safetensors'), 'in its own folder'),
    (lambda places: places.update(c='/etc/passwd'), 'in its own folder'),
    (lambda places: places.update(c='..'), 'in its own folder'),
    (lambda places: places.update(c='C:\\m-0.safetensors'), 'in its own folder'),
    (lambda places: places.update(c='id_rsa'), 'in its own folder'),
    (lambda places: places.update(c='m.index.json'), 'in its own folder'),
    (lambda places: places.update(c='absent.safetensors'), 'absent.safetensors, expected an ex'),
    (lambda places: places.update(c=3), 'no weight_map'),
])
def test_bad_index(tmp_path, change, words):
    path = write_shards(tmp_path, 'safetensors')
    content = json.loads(path.read_text())
    change(content['weight_map'])
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(path)


@pytest.mark.parametrize('wrap', [
    lambda weights: weights,
    lambda weights: {'module': weights},
    lambda weights: {'state_dict': {'module': weights}, 'epoch': 3},
    lambda weights: {'state_dict': {'optimizer': {}}, 'model': weights},
    lambda weights: {'model_ema': weights, 'model': {'a': torch.ones(1)}},
])
def test_weights_are_found_within_wrappers(tmp_path, wrap):
    torch.save(wrap({'module.a': torch.zeros(2)}), tmp_path / 'a.pth')
    read = read_checkpoint(tmp_path / 'a.pth')
    assert read['state_dict']['a'].tolist() == [0, 0]
    assert list(tensors_of(read)) == ['a']


def test_a_file_that_holds_itself_is_read():
    content: dict = {}
    content['module'] = content
    assert list(unwrap(content)['state_dict']) == ['module']
    with pytest.raises(CheckpointError, match='holds no tensors'):
        tensors_of(content)
