"""Layer decay: published worked examples, options, refusals."""
from __future__ import annotations

import re

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmcls_custom.backbones import FlashInternImage, InternImage
from mmdcn.engine.optimizers import LayerDecayOptimWrapperConstructor
from tests.helpers import reference_path
from tests.mmcls_custom.zoo import decay_tables

TINY = dict(channels=32, depths=(1, 1, 2, 1), groups=(2, 4, 8, 16))
MASK2FORMER = [f'decode_head.{name}' for name in
               ('mask_embed', 'cls_embed', 'level_embed', 'query_embed', 'query_feat')]


class Model(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(4, 4)


def constructor(**paramwise):
    cfg = dict(optimizer=dict(type='AdamW', lr=2.0, weight_decay=0.05))
    return LayerDecayOptimWrapperConstructor(cfg, paramwise)


def fields_of(backbone_settings):
    return {name: (s.layer, s.lr_scale, s.decay_mult) for name, s in backbone_settings.items()}


def test_rule_on_a_small_model():
    settings = constructor(layer_decay_rate=0.5, offset_lr_scale=0.1).param_settings(
        Model(FlashInternImage(**TINY)))
    expected = {
        'backbone.patch_embed.conv1.weight': (0, 0.5**6, 1.0),
        'backbone.patch_embed.conv1.bias': (0, 0.5**6, 0.0),
        'backbone.levels.0.blocks.0.mlp.fc1.weight': (1, 0.5**5, 1.0),
        'backbone.levels.0.downsample.conv.weight': (2, 0.5**4, 1.0),
        'backbone.levels.0.norm.0.weight': (2, 0.5**4, 0.0),
        'backbone.levels.2.blocks.1.dcn.offset_mask.weight': (4, 0.1 * 0.5**2, 1.0),
        'backbone.levels.2.blocks.1.dcn.value_proj.weight': (4, 0.5**2, 1.0),
        'backbone.levels.3.norm.0.weight': (5, 0.5, 0.0),
        'head.weight': (6, 1.0, 1.0),
        'head.bias': (6, 1.0, 0.0),
    }
    got = fields_of(settings)
    for name, (layer, scale, decay) in expected.items():
        assert got[name] == (layer, pytest.approx(scale), decay), name


@pytest.mark.parametrize('cls, arch, blocks', [
    (InternImage, 'large', 37), (InternImage, 'huge', 50), (FlashInternImage, 'base', 33)])
def test_layers_of_the_published_sizes(cls, arch, blocks):
    """A layer for each block, one for the stem, one for all that is outside."""
    with torch.device('meta'):
        model = Model(cls(arch))
    settings = constructor(layer_decay_rate=0.9).param_settings(model)
    level1 = len(model.backbone.levels[0].blocks)
    expected = {'patch_embed.conv1.weight': 0, 'levels.0.blocks.0.norm1.0.weight': 1,
                'levels.1.blocks.0.mlp.fc1.weight': 1 + level1,
                'levels.0.downsample.conv.weight': 1 + level1,
                f'levels.3.blocks.{level1 - 1}.mlp.fc2.weight': blocks}
    for name, layer in {**{f'backbone.{key}': number for key, number in expected.items()},
                        'head.weight': blocks + 1}.items():
        assert settings[name].layer == layer, name
        assert settings[name].lr_scale == pytest.approx(0.9**(blocks + 1 - layer)), name


def test_groups_hold_every_trained_parameter_once():
    model = Model(InternImage(**TINY, frozen_stages=1))
    wrapper = build_optim_wrapper(model, dict(
        optimizer=dict(type='AdamW', lr=2.0, weight_decay=0.05),
        constructor='LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=0.5)))
    groups = wrapper.optimizer.param_groups
    trained = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    held = [id(p) for g in groups for p in g['params']]
    assert sorted(held) == sorted(trained)
    assert not any('patch_embed' in n or 'levels.0' in n for g in groups for n in g['param_names'])
    assert len({g['group_name'] for g in groups}) == len(groups)
    for group in groups:
        assert group['lr'] == pytest.approx(2.0 * group['lr_scale'])
        assert group['weight_decay'] == (0.0 if 'no_decay' in group['group_name'] else 0.05)
        assert [trained[id(p)] for p in group['params']] == group['param_names']


def test_no_paramwise_cfg_still_spares_vectors():
    wrapper = build_optim_wrapper(Model(InternImage(**TINY)), dict(
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
        constructor='LayerDecayOptimWrapperConstructor'))
    decay = {n: g['weight_decay'] for g in wrapper.optimizer.param_groups for n in g['param_names']}
    assert decay['head.weight'] == 0.05 and decay['head.bias'] == 0
    assert all(g['lr'] == 1.0 for g in wrapper.optimizer.param_groups)


def test_optimizer_default_decay_spares_vectors():
    wrapper = build_optim_wrapper(Model(InternImage(**TINY)), dict(
        optimizer=dict(type='AdamW', lr=1.0), constructor='LayerDecayOptimWrapperConstructor'))
    decay = {n: g['weight_decay'] for g in wrapper.optimizer.param_groups for n in g['param_names']}
    assert decay['head.weight'] == 0.01 and decay['head.bias'] == 0


def test_custom_keys_multiply_and_longest_wins():
    settings = constructor(layer_decay_rate=0.5, custom_keys={
        'backbone': dict(lr_mult=0.1), 'backbone.patch_embed': dict(lr_mult=0.01, decay_mult=0.5),
        'head.bias': dict(decay_mult=1.0)}).param_settings(Model(InternImage(**TINY)))
    got = fields_of(settings)
    assert got['backbone.levels.3.blocks.0.mlp.fc1.weight'] == (5, pytest.approx(0.05), 1.0)
    assert got['backbone.patch_embed.conv1.bias'] == (0, pytest.approx(0.01 * 0.5**6), 0.5)
    assert got['head.bias'] == (6, 1.0, 1.0)


def test_layer_zero_keys_outside_the_backbone():
    settings = constructor(layer_decay_rate=0.5, layer_zero_keys=['head.']).param_settings(
        Model(InternImage(**TINY)))
    assert fields_of(settings)['head.weight'] == (0, pytest.approx(0.5**6), 1.0)


@pytest.mark.parametrize('paramwise, words', [
    (dict(layer_decay_rte=0.9), 'layer_decay_rte'),
    (dict(num_layers=30), 'num_layers'),
    (dict(rule='finetuning'), "rule is not valid: got 'finetuning', expected downstream, finetune"),
    (dict(layer_decay_rate=1.5), 'layer_decay_rate is not valid: got 1.5'),
    (dict(layer_zero_keys='head'), 'layer_zero_keys is not valid'),
    (dict(custom_keys={'head': dict(lr=1)}), r"custom_keys\['head'\] is not valid"),
])
def test_bad_options_are_refused(paramwise, words):
    with pytest.raises(ValueError, match=words):
        constructor(**paramwise)


def test_custom_key_without_parameter_is_refused():
    with pytest.raises(ValueError, match='nowhere'):
        constructor(custom_keys={'nowhere': dict(lr_mult=0.1)}).param_settings(
            Model(InternImage(**TINY)))


def test_backbone_that_does_not_answer_is_refused():
    with pytest.raises(TypeError, match='Conv2d has no get_layer_depth'):
        constructor().param_settings(Model(nn.Conv2d(3, 4, 1)))
    with pytest.raises(TypeError, match='Conv2d has no get_finetune_depth'):
        constructor(rule='finetune').param_settings(Model(nn.Conv2d(3, 4, 1)))
    with pytest.raises(TypeError, match='no submodule called backbone'):
        constructor().param_settings(nn.Linear(2, 2))


def test_resolves_by_its_bare_name():
    found = OPTIM_WRAPPER_CONSTRUCTORS.get('LayerDecayOptimWrapperConstructor')
    assert found is LayerDecayOptimWrapperConstructor


class _Listed(nn.Module):
    """A model that holds just the listed parameters beside a backbone on the meta device."""

    def __init__(self, backbone: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.backbone = backbone
        for name in names:
            parent = self
            *path, leaf = name.split('.')
            for part in path:
                if part not in dict(parent.named_children()):
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            shape = (1,) if leaf == 'bias' or '.ln.' in name else (1, 1)
            parent.register_parameter(leaf, nn.Parameter(torch.zeros(shape)))


@pytest.mark.parametrize('title, cls, arch, paramwise', [
    ('InternImage-L, Cascade', InternImage, 'large',
     dict(layer_decay_rate=0.9, offset_lr_scale=0.01)),
    ('InternImage-H, Mask2Former', InternImage, 'huge',
     dict(layer_decay_rate=0.95, layer_zero_keys=MASK2FORMER)),
    ('FlashInternImage-B, Mask R-CNN', FlashInternImage, 'base',
     dict(layer_decay_rate=0.9, offset_lr_scale=0.01)),
])
def test_worked_examples(title, cls, arch, paramwise):
    rows = next(rows for line, rows in decay_tables().items() if line.startswith(title))
    with torch.device('meta'):
        backbone = cls(arch)
    outside = [name for name, *_ in rows if not name.startswith('backbone.')]
    settings = constructor(**paramwise).param_settings(_Listed(backbone, outside))
    assert len(rows) >= 6
    for name, layer, scale, decays in rows:
        got = settings[name]
        assert got.layer == layer, name
        assert got.lr_scale == pytest.approx(scale, rel=1e-4), name
        assert got.decay_mult == float(decays), name


def test_fine_tuning_example():
    text = reference_path('zoo', 'layer_decay.md').read_text().split('ImageNet fine-tuning')[1]
    rows = re.findall(r'^\| `([\w.]+)` \| ([\d.]+) \| (yes|0) \|$', text.split('## 3.')[0], re.M)
    assert len(rows) == 16
    inside = ('patch_embed.', 'levels.')
    rows = [(f'backbone.{name}' if name.startswith(inside) else name, *rest)
            for name, *rest in rows]
    with torch.device('meta'):
        model = _Listed(InternImage('huge'),
                        [name for name, *_ in rows if not name.startswith('backbone.')])
    settings = constructor(rule='finetune', layer_decay_rate=0.9,
                           offset_lr_scale=0.1).param_settings(model)
    for name, scale, decays in rows:
        assert settings[name].lr_scale == pytest.approx(float(scale), rel=1e-4), name
        assert settings[name].decay_mult == float(decays == 'yes'), name
