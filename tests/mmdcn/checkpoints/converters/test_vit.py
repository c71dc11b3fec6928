"""Converters of plain ViTs: synthetic files of every family fill the detector's backbone."""
from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip('mmpretrain.models')

from mmpretrain.registry import MODELS as CLASSIFIERS

from mmcls_custom.backbones import PlainViT
from mmdcn.checkpoints import CheckpointError
from mmdcn.checkpoints.converters import Options, convert, detect, tensors_of
from mmdcn.checkpoints.converters.tables import resize_relative
from mmdcn.checkpoints.converters.vit import fold_bias
from tests.mmdcn.checkpoints.converters.cases import (
    DEPTH,
    HEADS,
    C,
    mae,
    random,
    timm,
    timm_blocks,
)

TABLE = 'relative_position_bias_table'


def deit(distilled=False):
    state = timm(lead=2 if distilled else 1) | {'head.weight': random(9, C), 'head.bias': random(9)}
    if distilled:
        state |= {'dist_token': random(1, 1, C), 'head_dist.weight': random(9, C),
                  'head_dist.bias': random(9)}
    return {'model': state}


def moco():
    base = {f'module.base_encoder.{k}': v for k, v in timm().items()}
    head = {'module.base_encoder.head.0.weight': random(9, C)}
    momentum = {f'module.momentum_encoder.{k}': v for k, v in timm().items()}
    return {'epoch': 300, 'arch': 'vit_base', 'scaler': {}, 'optimizer': {},
            'state_dict': {**base, **head, **momentum, 'module.predictor.0.weight': random(9, 9)}}


def beit(tables='shared', side=27):
    state = {'cls_token': random(1, 1, C), 'patch_embed.proj.weight': random(C, 3, 16, 16),
             'patch_embed.proj.bias': random(C), **timm_blocks(qkv_bias=False)}
    index = torch.zeros(197, 197, dtype=torch.long)
    for i in range(DEPTH):
        state |= {f'blocks.{i}.{name}': random(C)
                  for name in ('gamma_1', 'gamma_2', 'attn.q_bias', 'attn.v_bias')}
        if tables == 'blocks':
            state |= {f'blocks.{i}.attn.{TABLE}': random(side**2 + 3, HEADS),
                      f'blocks.{i}.attn.relative_position_index': index}
    if tables == 'shared':
        state |= {f'rel_pos_bias.{TABLE}': random(side**2 + 3, HEADS),
                  'rel_pos_bias.relative_position_index': index, 'mask_token': random(1, 1, C),
                  'norm.weight': random(C), 'norm.bias': random(C),
                  'lm_head.weight': random(9, C), 'lm_head.bias': random(9)}
        return {'model': state}
    state |= {'fc_norm.weight': random(C), 'fc_norm.bias': random(C), 'head.weight': random(9, C),
              'head.bias': random(9)}
    return {'module': state}


def openmmlab(kind):
    arch = dict(embed_dims=C, num_layers=DEPTH, num_heads=HEADS, feedforward_channels=4 * C)
    model = CLASSIFIERS.build(dict(type=kind, arch=arch))
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.normal_()
    state = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    return {'meta': {'epoch': 3}, 'state_dict': {
        **state, 'neck.mask_token': random(1, 1, C), 'head.fc.weight': random(9, C),
        'target_generator.x': random(2), 'data_preprocessor.mean': random(3)}}


HEAD = {'head.weight', 'head.bias'}
NORM = {'cls_token', 'norm.weight', 'norm.bias'}
DIST = {'dist_token', 'head_dist.weight', 'head_dist.bias'}
DECODER = {'mask_token', 'decoder_pos_embed', 'decoder_embed.weight',
           'decoder_blocks.0.norm1.weight'}
OTHER = {'neck.mask_token', 'head.fc.weight', 'target_generator.x', 'data_preprocessor.mean',
         'backbone.cls_token'}
INDICES = {f'blocks.{i}.attn.relative_position_index' for i in range(DEPTH)}

CASES = {
    'mae': (mae, 'mae', NORM), 'mae-full': (lambda: mae(True), 'mae', NORM | DECODER),
    'deit': (deit, 'timm', NORM | HEAD),
    'deit-distilled': (lambda: deit(True), 'timm', NORM | HEAD | DIST),
    'moco': (moco, 'moco-v3', None),
    'beit': (beit, 'beit', NORM | {'mask_token', 'lm_head.weight', 'lm_head.bias',
                                   'rel_pos_bias.relative_position_index'}),
    'beit-ft': (lambda: beit('blocks'), 'beit-ft',
                INDICES | HEAD | {'cls_token', 'fc_norm.weight', 'fc_norm.bias'}),
    'mmpretrain-vit': (lambda: openmmlab('VisionTransformer'), 'mmpretrain',
                       OTHER | {'backbone.ln1.weight', 'backbone.ln1.bias'}),
    'mmpretrain-mae': (lambda: openmmlab('MAEViT'), 'mmpretrain',
                       OTHER | {'backbone.ln1.weight', 'backbone.ln1.bias'}),
    'mmpretrain-beit': (lambda: openmmlab('BEiTViT'), 'mmpretrain', OTHER | {
        'backbone.ln2.weight', 'backbone.ln2.bias',
        *(f'backbone.layers.{i}.attn.relative_position_index' for i in range(DEPTH))}),
}


def in_timm_names(checkpoint):
    """Tensors of a file below timm's names, found without the converter."""
    state = checkpoint.get('state_dict', checkpoint.get('model', checkpoint.get('module')))
    names = {'layers': 'blocks', 'ln1': 'norm1', 'ln2': 'norm2', 'projection': 'proj',
             'ffn.blocks.0.0': 'mlp.fc1', 'ffn.blocks.1': 'mlp.fc2'}
    result = {}
    for key, value in state.items():
        if key.startswith(('module.momentum', 'module.predictor')):
            continue
        key = key.removeprefix('module.base_encoder.').removeprefix('backbone.')
        for old, new in names.items():
            key = key.replace(old, new)
        result[key] = value
    return result


@pytest.mark.parametrize('case', CASES)
def test_every_family_fills_the_backbone(case):
    make, family, dropped = CASES[case]
    checkpoint = make()
    state = tensors_of(checkpoint)
    assert detect(state)[0].name == family
    result = convert(checkpoint, family)
    if dropped is None:
        dropped = {key for key in state if not key.startswith('base_encoder.')} | {
            f'base_encoder.{key}' for key in NORM | {'head.0.weight'}}
    assert set(result.dropped) == dropped
    assert sorted([*result.kept, *result.renamed, *result.dropped]) == sorted(state)

    beit_like = 'beit' in case
    model = PlainViT(channels=C, depth=DEPTH, heads=HEADS, layer_scale=1.0 if beit_like else None)
    fresh = {key for key in model.state_dict() if key.startswith('resolution_modules.')} | (
        {'pos_embed'} if beit_like else {f'{part}.{TABLE}'
                                         for part in ('window_rel_pos', 'global_rel_pos')})
    match = model.load_state_dict(result.state_dict, strict=False)
    assert set(match.missing_keys) == fresh
    assert not match.unexpected_keys
    # What is neither joined nor resized arrives bit for bit under its name.
    source = in_timm_names(checkpoint)
    plain = {key for key in result.state_dict if not re.search(
        r'pos_embed|rel_pos', key) and (not beit_like or not key.endswith('qkv.bias'))}
    assert len(plain) >= 11 * DEPTH + 2
    for key in plain:
        assert torch.equal(result.state_dict[key], source[key]), key


@pytest.mark.parametrize(('settings', 'ours'), [
    (dict(type='VisionTransformer', with_cls_token=False, final_norm=False), {}),
    (dict(type='VisionTransformer', with_cls_token=False, final_norm=False,
          layer_scale_init_value=1.0), dict(layer_scale=1.0)),
    (dict(type='BEiTViT', use_rel_pos_bias=False, use_shared_rel_pos_bias=True),
     dict(layer_scale=1.0, rel_pos='shared_table')),
])
def test_converted_weights_compute_the_same(settings, ours):
    arch = dict(embed_dims=C, num_layers=4, num_heads=HEADS, feedforward_channels=4 * C)
    old = CLASSIFIERS.build(dict(arch=arch, out_type='featmap', **settings))
    old.eval()
    for value in old.parameters():
        torch.nn.init.normal_(value, std=0.1)
    if settings['type'] == 'BEiTViT':  # tokens must not see the class token, which ours lacks
        old.rel_pos_bias.relative_position_bias_table.data[-2] = -1e4
    result = convert({'state_dict': old.state_dict()}, 'mmpretrain').state_dict
    new = PlainViT(channels=C, depth=4, heads=HEADS, global_blocks=(), out_type='last',
                   **{'rel_pos': 'none', **ours}).eval()
    result.pop(f'global_rel_pos.{TABLE}', None)
    new.load_state_dict({'pos_embed': torch.zeros(1, 196, C), **result})
    image = random(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(new(image)[0], old(image)[0], rtol=1e-4, atol=1e-4)


def test_beit_tables_go_to_their_blocks():
    shared = beit()
    table = shared['model'][f'rel_pos_bias.{TABLE}']
    state = convert(shared, 'beit').state_dict
    assert torch.equal(state[f'window_rel_pos.{TABLE}'], table[:729])
    assert torch.equal(state[f'global_rel_pos.{TABLE}'], resize_relative(table, 127))

    single = beit('blocks', side=47)
    tables = [single['module'][f'blocks.{i}.attn.{TABLE}'] for i in range(DEPTH)]
    state = convert(single, 'beit-ft', Options(table_resize='geometric', window=24)).state_dict
    window, whole = (torch.stack([tables[i] for i in blocks]).mean(0)
                     for blocks in ((0, 2, 4, 6), (1, 3, 5, 7)))
    assert torch.equal(state[f'window_rel_pos.{TABLE}'], window[:47**2])
    assert torch.equal(state[f'global_rel_pos.{TABLE}'], resize_relative(whole, 127, 'geometric'))


def test_beit_bias_is_folded_exactly():
    q_bias, v_bias = random(C), random(C)
    folded = fold_bias(q_bias, v_bias)
    assert torch.equal(folded, torch.cat([q_bias, torch.zeros(C), v_bias]))
    checkpoint = beit()
    state = convert(checkpoint, 'beit').state_dict
    for i in range(DEPTH):
        parts = (checkpoint['model'][f'blocks.{i}.attn.{n}_bias'] for n in 'qv')
        assert torch.equal(state[f'blocks.{i}.attn.qkv.bias'], fold_bias(*parts))
    # A bias of k is without effect, so that zero loses nothing.
    weight, x = torch.randn(3 * C, C).double() / 8, torch.randn(30, C).double()

    def attend(bias):
        qkv = F.linear(x, weight, bias.double()).unflatten(-1, (3, HEADS, -1))
        q, k, v = qkv.permute(1, 2, 0, 3)
        return F.scaled_dot_product_attention(q, k, v)

    other = torch.cat([q_bias, random(C), v_bias])
    torch.testing.assert_close(attend(folded), attend(other), rtol=0, atol=1e-12)


def test_layer_scale_of_timm():
    state = timm() | {f'blocks.{i}.ls{n}.gamma': torch.full((C,), float(n))
                      for i in range(DEPTH) for n in (1, 2)}
    result = convert({'model': state}, 'mae')
    assert result.state_dict['blocks.7.gamma_2'][0] == 2
    assert any('layer_scale' in note for note in result.notes)


@pytest.mark.parametrize(('change', 'words'), [
    (lambda s: s.pop('blocks.3.mlp.fc1.bias'), r'blocks\.3\.mlp\.fc1\.bias is missing'),
    (lambda s: [s.pop(k) for k in list(s) if k.startswith('blocks.5.')], 'is missing'),
    (lambda s: s.update({'blocks.2.attn.qkv_a.weight': random(2)}), r'got blocks\.2\.attn\.qkv_a'),
    (lambda s: s.update({'blocks.2.gamma_1': random(C)}), 'got 8 blocks with 1 layer scales'),
    (lambda s: s.pop('patch_embed.proj.weight'), 'no patch embedding'),
])
def test_blocks_are_whole_or_refused(change, words):
    state = timm()
    change(state)
    with pytest.raises(CheckpointError, match=words):
        convert({'model': state}, 'mae')


def test_another_family_is_refused():
    for checkpoint, family in ((beit(), 'mae'), (mae(), 'beit'), (deit(), 'moco-v3')):
        with pytest.raises(CheckpointError, match=f'expected a file of the family {family}'):
            convert(checkpoint, family)
    with pytest.raises(CheckpointError, match='pos_grid is not valid: the file has no pos_embed'):
        convert(beit(), 'beit', Options(pos_grid=(14, 14)))


def test_classifier_of_timm_both_ways():
    arch = dict(embed_dims=C, num_layers=DEPTH, num_heads=HEADS, feedforward_channels=4 * C)
    model = CLASSIFIERS.build(dict(
        type='ImageClassifier', backbone=dict(type='VisionTransformer', arch=arch),
        head=dict(type='VisionTransformerClsHead', num_classes=9, in_channels=C)))
    checkpoint = deit()
    result = convert(checkpoint, 'timm-classifier')
    model.load_state_dict(result.state_dict)
    back = convert({'state_dict': model.state_dict()}, 'timm-classifier', inverse=True).state_dict
    assert back.keys() == checkpoint['model'].keys()
    assert all(torch.equal(back[key], value) for key, value in checkpoint['model'].items())
    with pytest.raises(CheckpointError, match='got dist_token, head_dist'):
        convert(deit(True), 'timm-classifier')
