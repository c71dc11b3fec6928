"""Layer decay of ConvNeXt, ViT and BEiT against the published worked examples."""
from __future__ import annotations

import importlib

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmdcn.analysis.complexity import build_on_meta
from mmdcn.engine.optimizers import LayerDecayOptimWrapperConstructor
from mmdcn.traits import find_trait
from tests.mmcls_custom.zoo import decay_tables

BEIT = dict(no_decay_keys=['pos_embed', 'cls_token', 'rel_pos_'])
RENAMES = {'dwconv': 'depthwise_conv', 'pwconv': 'pointwise_conv'}


def settings_of(model, **paramwise):
    cfg = dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05))
    return LayerDecayOptimWrapperConstructor(cfg, paramwise).param_settings(model)


def build(**cfg):
    scope = cfg['type'].rpartition('.')[0]
    if scope:
        pytest.importorskip(scope)
    importlib.import_module(f'{scope}.models' if scope else 'mmcls_custom.backbones.convnext')
    with DefaultScope.overwrite_default_scope('mmengine'):
        return build_on_meta(lambda: MODELS.build(cfg))


class Model(nn.Module):
    """A backbone, and listed parameters outside it."""

    def __init__(self, backbone, names=()):
        super().__init__()
        self.backbone = backbone
        for name in names:
            add_parameter(self, name)


def add_parameter(module, name):
    *path, leaf = name.split('.')
    for part in path:
        if part not in dict(module.named_children()):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    vector = leaf in ('bias', 'gamma_1') or 'norm' in name
    module.register_parameter(leaf, nn.Parameter(torch.zeros((1,) if vector else (1, 1))))


class Transformer(nn.Module):
    """Only the names of a plain vision transformer."""

    def __init__(self, depth, names):
        super().__init__()
        self.patch_embed = nn.Module()
        self.blocks = nn.ModuleList(nn.Module() for _ in range(depth))
        for name in names:
            add_parameter(self, name)


def table(title):
    return next(rows for line, rows in decay_tables().items() if line.startswith(title))


def assert_table(settings, rows, renames):
    assert len(rows) >= 11
    for name, layer, scale, decays in rows:
        for old, new in renames.items():
            name = name.replace(old, new)
        got = settings[name]
        assert (got.layer, got.decay_mult) == (layer, float(decays)), name
        assert got.lr_scale == pytest.approx(scale, rel=1e-4), name


@pytest.mark.parametrize('title, arch, paramwise', [
    ('ConvNeXt-B, Cascade', 'base', dict(layer_decay_rate=0.8)),
    ('ConvNeXt-T, Mask R-CNN', 'tiny', dict(layer_decay_rate=0.95)),
    ('ConvNeXt-T, UperNet', 'tiny', dict(layer_decay_rate=0.9, rule='stage_wise')),
    ('ConvNeXt-L, UperNet', 'large', dict(layer_decay_rate=0.9, rule='stage_wise')),
])
@pytest.mark.parametrize('kind', ['mmpretrain.ConvNeXt', 'DeformableConvNeXt'])
def test_convnext(kind, title, arch, paramwise):
    rows = table(title)
    backbone = build(type=kind, arch=arch, out_indices=[0, 1, 2, 3])
    outside = [name for name, *_ in rows if not name.startswith('backbone.')]
    renames = dict(RENAMES)
    if kind == 'DeformableConvNeXt':
        renames['dwconv.weight'] = 'depthwise_conv.offset_mask.weight'
    assert_table(settings_of(Model(backbone, outside), **paramwise), rows,
                 dict(sorted(renames.items(), key=lambda pair: -len(pair[0]))))


STAGE_WISE = dict(layer_decay_rate=0.9, rule='stage_wise')


@pytest.mark.parametrize('arch, paramwise, layers, expected', [
    # Layers of three blocks in the third stage; the small stages are one each.
    ('base', dict(layer_decay_rate=0.8), 14, {
        'downsample_layers.0.0.weight': 0, 'downsample_layers.1.1.weight': 2,
        'downsample_layers.2.1.weight': 3, 'downsample_layers.3.1.weight': 12,
        'stages.0.2.gamma': 1, 'stages.1.0.gamma': 2, 'stages.2.2.gamma': 3, 'stages.2.3.gamma': 4,
        'stages.2.26.gamma': 11, 'stages.3.0.gamma': 12}),
    ('tiny', dict(layer_decay_rate=0.95), 8, {
        'downsample_layers.0.0.weight': 0, 'stages.0.0.gamma': 1, 'stages.1.2.gamma': 2,
        'stages.2.0.gamma': 3, 'stages.2.8.gamma': 5, 'stages.3.0.gamma': 6}),
    # Counted in the six layers of T, two more for both ends, though stages are only four.
    ('tiny', STAGE_WISE, 8, {
        'downsample_layers.0.0.weight': 0, 'downsample_layers.3.1.weight': 0,
        'stages.0.0.gamma': 1, 'stages.2.8.gamma': 3, 'stages.3.2.gamma': 4}),
])
def test_rules_of_convnext_by_hand(arch, paramwise, layers, expected):
    """What the published training does, without the reference tables."""
    backbone = build(type='mmpretrain.ConvNeXt', arch=arch, out_indices=[0, 1, 2, 3])
    settings = settings_of(Model(backbone, ['head.weight']), **paramwise)
    for name, layer in {**{f'backbone.{key}': number for key, number in expected.items()},
                        'head.weight': layers - 1}.items():
        scale = paramwise['layer_decay_rate']**(layers - 1 - layer)
        assert settings[name].layer == layer, name
        assert settings[name].lr_scale == pytest.approx(scale), name
        assert settings[name].decay_mult == float('gamma' not in name), name


@pytest.mark.parametrize('arch', ['tiny', 'small'])
def test_convnext_has_14_layers_on_imagenet(arch):
    backbone = build(type='mmpretrain.ConvNeXt', arch=arch)
    settings = settings_of(Model(backbone, ['head.weight']), layer_decay_rate=0.5, rule='finetune')
    expected = {'downsample_layers.0.0.weight': 0, 'stages.0.2.gamma': 1, 'stages.1.0.gamma': 2,
                'downsample_layers.2.1.weight': 3, 'stages.2.8.gamma': 5, 'stages.3.0.gamma': 12,
                'downsample_layers.3.1.weight': 12, 'norm3.weight': 13}
    for name, layer in expected.items():
        got = settings[f'backbone.{name}']
        assert (got.layer, got.lr_scale) == (layer, 0.5**(13 - layer)), name
    assert settings['head.weight'].lr_scale == 1


def test_transformer_by_its_names():
    rows = table('12 blocks')
    inside = [name.removeprefix('backbone.') for name, *_ in rows if name.startswith('backbone.')]
    model = Model(Transformer(12, inside), ['decode_head.conv_seg.weight'])
    assert_table(settings_of(model, layer_decay_rate=0.9, **BEIT), rows, {})


@pytest.mark.parametrize('cfg', [
    dict(type='mmpretrain.VisionTransformer', arch='deit-tiny'),
    dict(type='mmseg.BEiT', embed_dims=192, num_heads=3, init_values=0.1),
    dict(type='mmseg.MAE', embed_dims=192, num_heads=3, init_values=0.1),
], ids=lambda cfg: cfg['type'])
def test_published_transformers(cfg):
    settings = settings_of(Model(build(**cfg), ['decode_head.weight']), layer_decay_rate=0.9)
    got = {name: setting.layer for name, setting in settings.items()}
    assert got['backbone.cls_token'] == got['backbone.patch_embed.projection.weight'] == 0
    for block in range(12):
        prefix = f'backbone.layers.{block}.'
        assert {got[name] for name in got if name.startswith(prefix)} == {block + 1}
    assert got['decode_head.weight'] == 13
    assert settings['backbone.cls_token'].decay_mult == 0
    assert settings['backbone.layers.3.attn.qkv.weight'].decay_mult == 1


def test_position_table_never_decays():
    settings = settings_of(Model(build(type='mmpretrain.VisionTransformer', arch='deit-tiny')))
    assert settings['backbone.pos_embed'].decay_mult == 0


def test_own_answer_comes_first():
    class Own(Transformer):
        def get_layer_depth(self, name, prefix):
            return 7, 8

    assert find_trait(Own(2, []), 'get_layer_depth')('backbone.x', 'backbone.') == (7, 8)


@pytest.mark.parametrize('rule, words', [('downstream', 'no get_layer_depth'),
                                         ('stage_wise', 'no get_stage_depth')])
def test_unknown_backbone_is_refused(rule, words):
    with pytest.raises(TypeError, match=words):
        settings_of(Model(nn.Conv2d(3, 4, 1)), rule=rule)
    with pytest.raises(TypeError, match='no get_stage_depth'):
        settings_of(Model(Transformer(2, [])), rule='stage_wise')
