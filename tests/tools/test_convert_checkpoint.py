"""tools/convert_checkpoint.py: what it says, what it writes, and what it refuses."""
from __future__ import annotations

import json
import os
from itertools import pairwise

import pytest
import torch

from mmcls_custom.backbones import FlashInternImage, PlainViT
from mmcls_custom.necks import InternImageConvNeck
from mmdcn.checkpoints import read_checkpoint
from mmdcn.checkpoints.converters import FAMILIES
from tests.helpers import ROOT
from tools import convert_checkpoint

MINI = ROOT / 'configs/mini/flash-internimage-pico_1xb48-2k_mini-imagenet-64x64.py'


@pytest.fixture
def tool(capsys):
    """Function that runs the tool and gives exit code, standard output and standard error."""

    def run(*args):
        capsys.readouterr()
        code = convert_checkpoint.main([str(arg) for arg in args])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def published(tmp_path):
    """A small FlashInternImage classifier as the authors publish them."""
    with torch.device('meta'):
        parts = {**FlashInternImage('pico', layer_scale=1.0).state_dict(),
                 **InternImageConvNeck(256).state_dict()}
    state = {name: torch.randn(value.shape) if value.ndim else torch.tensor(5)
             for name, value in parts.items()}
    state |= {'head.weight': torch.randn(8, 384), 'head.bias': torch.randn(8)}
    torch.save({'model': state, 'epoch': 300}, tmp_path / 'published.pth')
    return tmp_path / 'published.pth'


def refused(answer, words):
    code, _, err = answer
    assert code == 2
    assert words in err, err
    assert 'Traceback' not in err


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_there_and_back(tool, published, tmp_path, suffix):
    ours, back = tmp_path / f'new/ours{suffix}', tmp_path / 'back.pth'
    code, out, err = tool(published, ours)
    assert code == 0, err
    state = read_checkpoint(published)['state_dict']
    assert 'family internimage (told by patch_embed.conv1.weight and levels.0.blocks.0.dcn.' in out
    for line in ('kept:    0', f'renamed: {len(state)}', 'dropped: 0', 'resized: 0'):
        assert line in out
    written = read_checkpoint(ours)
    assert written['meta']['converted_by'] == 'internimage'
    assert written['meta']['source'] == 'published.pth'
    assert 'head.fc.weight' in written['state_dict']
    code, out, err = tool(ours, back, '--family', 'internimage', '--inverse')
    assert code == 0, err
    again = read_checkpoint(back)['state_dict']
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)


def test_result_is_checked_against_a_config(tool, published, tmp_path):
    code, out, err = tool(published, tmp_path / 'a.pth', '--model-config', MINI)
    assert code == 0, err
    assert 'against ImageClassifier' in out
    assert 'ratio: 100.0%' in out
    other = tmp_path / 'other.py'
    other.write_text(f"_base_ = {str(MINI)!r}\nmodel = dict("
                     "backbone=dict(depths=(1, 1, 9, 1)))\n")
    refused(tool(published, tmp_path / 'b.pth', '--model-config', other), 'does not fit the model')
    assert not (tmp_path / 'b.pth').exists()


def test_backbone_alone_is_checked_against_the_backbone(tool, tmp_path):
    with torch.device('meta'):
        model = PlainViT('pico')
    state = {key: torch.randn(value.shape) for key, value in model.state_dict().items()
             if 'resolution_modules' not in key and 'rel_pos' not in key}
    state['pos_embed'] = torch.randn(1, 197, 64)
    torch.save({'model': {**state, 'cls_token': torch.zeros(1, 1, 64),
                          'mask_token': torch.zeros(1)}}, tmp_path / 'mae.pth')
    config = tmp_path / 'vit.py'
    config.write_text("custom_imports = dict(imports=['mmcls_custom'])\n"
                      "model = dict(type='PlainViT', arch='pico')\n")
    code, out, err = tool(tmp_path / 'mae.pth', tmp_path / 'vit.safetensors', '--verbose',
                          '--model-config', config, '--min-match', 0.9)
    assert code == 0, err
    assert 'family mae' in out
    assert 'dropped  cls_token\n  dropped  mask_token\n' in out
    assert 'resized  pos_embed (1, 197, 64) -> (1, 196, 64)' in out


def test_averaged_weights_come_first(tool, published, tmp_path):
    content = torch.load(published)
    content['model_ema'] = {key: value * 0 for key, value in content['model'].items()}
    torch.save(content, published)
    for extra, zero in (((), True), (('--no-ema',), False)):
        code, out, err = tool(published, tmp_path / 'x.pth', '--force', *extra)
        assert code == 0, err
        assert ('--no-ema takes the others' in out) is zero
        weight = read_checkpoint(tmp_path / 'x.pth')['state_dict']['head.fc.weight']
        assert (not weight.any()) is zero


def test_class_names_of_old_files_are_kept(tool, tmp_path):
    torch.save({'meta': {'CLASSES': ('a', 'b'), 'PALETTE': [[0, 0, 0], [1, 1, 1]], 'epoch': 3},
                'state_dict': {'decode_head.conv_seg.bias': torch.arange(5.)}}, tmp_path / 'o.pth')
    (tmp_path / 'rows.txt').write_text('0-1\n4\n')
    code, out, err = tool(tmp_path / 'o.pth', tmp_path / 'n.pth', '--class-rows',
                          f'@{tmp_path}/rows.txt')
    assert code == 0, err
    new = read_checkpoint(tmp_path / 'n.pth')
    assert new['meta']['dataset_meta'] == {'classes': ['a', 'b'],
                                           'palette': [[0, 0, 0], [1, 1, 1]]}
    assert new['state_dict']['decode_head.conv_seg.bias'].tolist() == [0, 1, 4]


ROWS_OF_1K = ROOT / 'tools/data/imagenet22k_to_1k.txt'


def test_rows_of_imagenet_1k_in_22k():
    rows = [int(line) for line in ROWS_OF_1K.read_text().splitlines()]
    assert len(rows) == 1000 and rows[0] >= 0 and rows[-1] < 21841
    # Both sets lie in the sorted order of their folders; one folder of 1k is not in 22k.
    steps = [after - before for before, after in pairwise(rows)]
    assert [number for number, step in enumerate(steps, 1) if step <= 0] == [850]
    assert rows[850] == rows[849]


def test_head_of_imagenet_22k_becomes_one_of_1k(tool, published, tmp_path):
    content = torch.load(published)
    content['model'] |= {'head.weight': torch.arange(21841.)[:, None].expand(-1, 384).clone(),
                         'head.bias': torch.arange(21841.)}
    torch.save(content, published)
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = {str(MINI)!r}\nmodel = dict(head=dict(num_classes=1000))\n')
    code, out, err = tool(published, tmp_path / 'x.pth', '--class-rows', f'@{ROWS_OF_1K}',
                          '--model-config', config, '--min-match', 1)
    assert code == 0, err
    assert 'resized: 2' in out and 'ratio: 100.0%' in out
    state = read_checkpoint(tmp_path / 'x.pth')['state_dict']
    rows = torch.tensor([float(line) for line in ROWS_OF_1K.read_text().split()])
    assert torch.equal(state['head.fc.bias'], rows)
    assert torch.equal(state['head.fc.weight'], rows[:, None].expand(-1, 384))


def test_list_names_every_family(tool):
    code, out, _ = tool('--list')
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(FAMILIES)


def test_existing_files_stay(tool, published, tmp_path):
    kept = tmp_path / 'kept.pth'
    kept.write_bytes(b'mine')
    refused(tool(published, kept), 'exists, expected a new file')
    assert kept.read_bytes() == b'mine'
    assert tool(published, kept, '--force')[0] == 0
    assert 'state_dict' in read_checkpoint(kept)


@pytest.mark.parametrize(('args', 'words'), [
    ([], 'got too few'),
    (['--family', 'convnext'], 'expected a file of the family convnext'),
    (['--family', 'dcnv5'], "family is not valid: got 'dcnv5'"),
    (['--inverse'], '--inverse does not guess'),
    (['--pos-grid', '14', '14'], '--pos-grid is not valid: the family internimage'),
    (['--patch-size', '0'], '--patch-size is not valid: got 0'),
    (['--class-rows', '1-'], "--class-rows is not valid: got '1-'"),
    (['--class-rows', '5-2'], '--class-rows is not valid'),
    (['--class-rows', '@absent.txt'], '--class-rows is not valid'),
    (['--class-rows', '0,8'], 'got row 8, expected rows below 8'),
    (['--model-config', 'absent.py'], 'config is not valid'),
])
def test_bad_requests(tool, published, tmp_path, args, words):
    paths = [published, tmp_path / 'new' / 'x.pth'] if args else [published]
    refused(tool(*paths, *args), words)
    assert not (tmp_path / 'new').exists()


class Evil:
    """Pickles as a call."""

    def __reduce__(self):
        return os.system, ('touch pwned',)


@pytest.mark.parametrize(('spoil', 'words'), [
    (lambda path: path.write_bytes(path.read_bytes()[:5000]), 'cannot be read'),
    (lambda path: path.unlink(), 'expected an existing file'),
    (lambda path: torch.save({'model': {}, 'x': Evil()}, path), 'was not executed'),
    (lambda path: torch.save({'model': {'w': torch.ones(1)}}, path), 'no family has keys'),
    (lambda path: torch.save({'model': {'w': 1}}, path), 'holds no weights'),
])
def test_bad_files(tool, published, tmp_path, monkeypatch, spoil, words):
    monkeypatch.chdir(tmp_path)
    spoil(published)
    before = sorted(tmp_path.iterdir())
    refused(tool(published, tmp_path / 'new' / 'x.pth'), words)
    assert sorted(tmp_path.iterdir()) == before


def test_names_of_the_target(tool, published, tmp_path):
    refused(tool(published, tmp_path / 'x.ckpt'), 'ends in .safetensors, .pth, .pt')
    (tmp_path / 'folder.pth').mkdir()
    refused(tool(published, tmp_path / 'folder.pth', '--force'), 'is a folder, expected a file')


@pytest.mark.parametrize('target', ['source.pth', './x/../source.pth', 'link.pth', 'part.pth'])
def test_the_source_is_never_written_over(tool, tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'x').mkdir()
    for name in ('source.pth', 'part.pth'):
        torch.save({'state_dict': {'a': torch.ones(2)}}, name)
    (tmp_path / 'link.pth').symlink_to('source.pth')
    (tmp_path / 'all.index.json').write_text(json.dumps({'weight_map': {'a': 'part.pth'}}))
    before = {path: path.read_bytes() for path in tmp_path.glob('*.*')}
    source = 'all.index.json' if target == 'part.pth' else 'source.pth'
    code, _, err = tool(source, target, '--family', 'mmseg0', '--force')
    assert code == 2 and 'DST is not valid' in err and 'which is the input' in err
    assert {path: path.read_bytes() for path in tmp_path.glob('*.*')} == before
