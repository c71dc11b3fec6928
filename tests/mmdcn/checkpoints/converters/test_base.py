"""What all families share: wrappers, renaming, rows of classes, refusals."""
from __future__ import annotations

import json

import pytest
import torch

from mmdcn.checkpoints import CheckpointError
from mmdcn.checkpoints.converters import FAMILIES, Options, convert, detect, tensors_of
from mmdcn.checkpoints.converters.base import Renames
from tests.helpers import ROOT


def test_class_rows():
    state = {'decode_head.conv_seg.weight': torch.arange(20.).view(5, 4, 1, 1),
             'decode_head.conv_seg.bias': torch.arange(5.),
             'auxiliary_head.conv_seg.bias': torch.arange(5.), 'neck.bias': torch.arange(5.)}
    result = convert({'state_dict': state}, 'mmseg0', Options(class_rows=(3, 0)))
    assert result.state_dict['decode_head.conv_seg.bias'].tolist() == [3, 0]
    assert result.state_dict['auxiliary_head.conv_seg.bias'].tolist() == [3, 0]
    assert len(result.resized) == 3
    head = {'stem.weight': torch.ones(1), 'blocks.0.dwconv.bias': torch.ones(1),
            'head.weight': torch.randn(7, 3), 'head.bias': torch.arange(7.)}
    small = convert({'state_dict': head}, 'convnext', Options(class_rows=(6, 2))).state_dict
    assert torch.equal(small['head.fc.weight'], head['head.weight'][[6, 2]])
    assert small['head.fc.bias'].tolist() == [6, 2]
    with pytest.raises(CheckpointError, match='got row 5, expected rows below 5'):
        convert({'state_dict': state}, 'mmseg0', Options(class_rows=(5,)))


@pytest.mark.parametrize(('rows', 'got'), [
    ((), 'no row'), ((-1,), 'row -1'), ((0, 5), 'row 5'), ((1, 7, 5), 'row 7')])
def test_rows_that_the_file_does_not_have(rows, got):
    state = {'decode_head.conv_seg.bias': torch.arange(5.)}
    with pytest.raises(CheckpointError, match=f'got {got}, expected rows below 5'):
        convert({'state_dict': state}, 'mmseg0', Options(class_rows=rows))


def test_wrappers_of_files():
    inner = {'a.weight': torch.ones(2)}
    for wrapped in ({'state_dict': inner}, {'state_dict': {'module': inner}}, {'module': inner},
                    {'model': inner}, inner, {'state_dict': {'module.a.weight': inner['a.weight']}},
                    {'state_dict': {**inner, 'epoch': 3}}):
        assert list(tensors_of(wrapped)) == ['a.weight']
    both = {'model': inner, 'model_ema': {'a.weight': torch.zeros(2)}}
    assert tensors_of(both)['a.weight'].sum() == 0
    assert tensors_of(both, averaged=False)['a.weight'].sum() == 2
    with pytest.raises(CheckpointError, match='averaged is not valid'):
        tensors_of({'model': inner}, averaged=False)
    with pytest.raises(CheckpointError, match='holds no tensors'):
        tensors_of({'state_dict': {'optimizer': {}}})


@pytest.mark.parametrize(('family', 'state', 'words'), [
    ('internimage', {'decode_head.x': 0}, 'has no keys like'),
    ('mmdet2', {'patch_embed.conv1.weight': 0}, 'expected a file of the family mmdet2'),
    ('internimage', {'patch_embed.conv1.weight': 0, 'levels.0.blocks.0.dcn.x': 0, 'odd': 0},
     'got odd, expected patch_embed'),
    ('convnext', {'stem.weight': 0, 'blocks.0.dwconv.weight': 0, 'odd': 0}, 'got odd'),
    ('convnext-v9', {'a': 0}, 'family is not valid: got .convnext-v9.'),
])
def test_other_files_are_refused(family, state, words):
    with pytest.raises(CheckpointError, match=words):
        convert({'state_dict': {key: torch.ones(1) for key in state}}, family)


def test_other_requests_are_refused():
    with pytest.raises(CheckpointError, match='class_rows is not valid'):
        convert({}, 'mae', Options(class_rows=(1,)))
    with pytest.raises(CheckpointError, match='inverse is not valid'):
        convert({}, 'mae', inverse=True)
    with pytest.raises(CheckpointError, match='no family has keys such as a, b'):
        detect({'a': torch.ones(1), 'b': torch.ones(1)})


def test_two_tensors_never_share_a_name():
    state = {'backbone.levels.0.blocks.0.dcn.x': torch.ones(1), 'patch_embed.conv1.bias':
             torch.ones(1), 'levels.0.blocks.0.dcn.x': torch.ones(1)}
    with pytest.raises(CheckpointError, match='both become backbone.levels'):
        convert({'state_dict': state}, 'internimage')


def test_renames_read_both_ways():
    rules = Renames([('a.{i}.b{n}.{rest}', 'x.{n}.{i}.{rest}'), ('a.{rest}', 'y.{rest}')])
    assert rules('a.3.b12.c.d') == 'x.12.3.c.d'
    assert rules.back('x.12.3.c.d') == 'a.3.b12.c.d'
    assert rules('a.b.c') == 'y.b.c'
    assert rules('b') is None


def test_model_zoo_names_families():
    rows = json.loads((ROOT / 'docs/model_zoo.json').read_text())['rows']
    named = {row['conversion'] for row in rows if 'conversion' in row}
    assert 'convnext' in named
    assert named <= {'none', *FAMILIES}


def test_every_family_is_described():
    assert all(name == family.name and ' -> ' in family.summary
               for name, family in FAMILIES.items())
