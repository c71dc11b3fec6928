"""How the tensors of a checkpoint meet those of a model, and the ways that end there."""
from __future__ import annotations

import re

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS, WEIGHT_INITIALIZERS, DefaultScope
from torch import nn

from mmcls_custom.backbones import InternImage, PlainViT
from mmdcn.checkpoints import (
    CheckedPretrainedInit,
    CheckpointError,
    load_state_dict,
    loading_policy,
    matching,
    save_checkpoint,
)
from tests.mmcls_custom import zoo

LINES = ['loaded', 'expected-missing', 'unexpected', 'resized', 'ratio']


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in state.items()}


def pico(**settings) -> InternImage:
    return InternImage(arch='pico', core_op='DCNv4', **settings)


@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.', 'model.', 'module.backbone.'])
def test_prefixes(prefix):
    source, target = model(), model()
    state = prefixed(source.state_dict(), prefix)
    report = load_state_dict(target, state, source='a.pth')
    assert report.ratio == 1 and not report.unexpected
    assert torch.equal(source[0].weight, target[0].weight)


def test_names_outside_the_prefix_are_reported():
    state = {**prefixed(model().state_dict(), 'backbone.'), 'head.fc.weight': torch.ones(1),
             '0.weight': torch.ones(1)}
    report = load_state_dict(model(), state, source='a.pth')
    assert report.ratio == 1 and report.unexpected == ['head.fc.weight', '0.weight']


def test_a_given_prefix():
    source, target = model(), model()
    state = {**prefixed(source.state_dict(), 'neck.'), **prefixed(model().state_dict(), 'other.')}
    for prefix in ('neck', 'neck.'):
        report = load_state_dict(target, state, source='a.pth', prefix=prefix)
        assert report.ratio == 1 and not report.unexpected
    assert torch.equal(source[0].weight, target[0].weight)
    with pytest.raises(CheckpointError, match="got 'head', expected .* a.pth: neck, other"):
        load_state_dict(target, state, source='a.pth', prefix='head')


def test_report_and_unchanged_model():
    target = model()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    state = {'0.weight': torch.zeros(5, 3), '0.bias': torch.ones(4), 'head.weight': torch.ones(1),
             '1.num_batches_tracked': torch.tensor(3)}
    with pytest.raises(CheckpointError, match='expected at least 99% of the tensors') as caught:
        load_state_dict(target, state, source='a.pth')
    assert str(caught.value).splitlines()[1:] == [
        '  loaded: 2',
        '  expected-missing: 0',
        '  unexpected: 1: head.weight',
        '  resized: 1: 0.weight (checkpoint (5, 3), model (4, 3)) not loaded',
        '  ratio: 28.5% of the tensors of the model; missing 4: 1.weight, 1.bias, '
        '1.running_mean, 1.running_var',
    ]
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())
    assert caught.value.name == 'checkpoint' and caught.value.details.startswith('  loaded: 2')
    assert caught.value.remedy.endswith('or allow less with `min_match`')
    with loading_policy(min_match=0.28):
        report = load_state_dict(target, state, source='a.pth')
    assert report.loaded == ['0.bias', '1.num_batches_tracked']
    assert torch.equal(target[0].bias, torch.ones(4))
    with pytest.raises(CheckpointError, match='at least 99%'):
        load_state_dict(target, state, source='a.pth')


def test_a_full_match_says_so():
    lines = str(load_state_dict(model(), model().state_dict(), source='a.pth')).splitlines()
    assert [line.split(':')[0].strip() for line in lines] == LINES
    assert lines[-1] == '  ratio: 100.0% of the tensors of the model'


def test_nearly_all_is_not_all():
    target = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(2000)))
    state = target.state_dict()
    del state['7.weight']
    report = load_state_dict(target, state, source='a.pth')
    assert '99.9% of the tensors of the model; missing 1: 7.weight' in str(report)


def test_tensors_that_cannot_be_copied_do_not_count():
    state = model().state_dict()
    state['0.bias'] = torch.ones(4).to_sparse()
    state['0.weight'] = torch.empty(4, 3, device='meta')
    state['1.bias'] = 'text'
    with pytest.raises(CheckpointError, match=r'missing 3: 0\.weight, 0\.bias, 1\.bias'):
        load_state_dict(model(), state, source='a.pth')


# What a family legitimately lacks.

def test_layer_scale_of_a_classifier_without():
    source, target = pico(), pico(layer_scale=1.0)
    state = {**source.state_dict(), 'conv_head.0.weight': torch.ones(1), 'head.bias': torch.ones(1)}
    report = load_state_dict(target, state, source='a.pth')
    blocks = sum(source.cfg.depths)
    assert report.ratio == 1 and len(report.expected_missing) == 2 * blocks and not report.missing
    assert report.unexpected == ['conv_head.0.weight', 'head.bias']
    assert (target.levels[2].blocks[1].gamma2 == 1).all()


@pytest.mark.filterwarnings('ignore:.*to a meta parameter')
@pytest.mark.parametrize(('family', 'size'), zoo.MANIFESTS)
def test_published_classifiers_fill_downstream_backbones(family, size):
    data = zoo.manifest(family, size)
    view = data['downstream_backbone']
    with torch.device('meta'):
        target = zoo.family_class(family)(zoo.SIZES[size])
    one = torch.ones(1)
    state = {key: one.expand(shape) if shape else one[0]
             for key, shape in data['classification']['state_dict'].items()}
    report = load_state_dict(target, state, source='a.pth')
    assert report.ratio == 1 and not report.missing
    assert set(report.expected_missing) == set(view['keys_only_in_downstream'])
    assert set(report.unexpected) == set(view['keys_only_in_classification'])


def test_plain_vit_from_a_classifier():
    settings = dict(arch='pico', layer_scale=1.0)
    source = PlainViT(**settings, out_type='last', rel_pos='none')
    target = PlainViT(**settings, conv_blocks=(1,), out_norm=True)
    report = load_state_dict(target, source.state_dict(), source='a.pth')
    assert report.ratio == 1 and not report.unexpected
    kinds = {re.sub(r'\.?\d.*', '', key) for key in report.expected_missing}
    assert kinds == {'blocks', 'resolution_modules', 'out_norms',
                     'window_rel_pos.relative_position_bias_table',
                     'global_rel_pos.relative_position_bias_table'}
    assert all('residual' in key for key in report.expected_missing if key.startswith('blocks'))


def test_half_of_the_layer_scale_is_damage():
    state = pico(layer_scale=1.0).state_dict()
    for key in [key for key in state if key.endswith('gamma1') and 'levels.2' in key]:
        del state[key]
    report = load_state_dict(pico(layer_scale=1.0), state, source='a.pth', min_ratio=0.9)
    assert len(report.missing) == 2 and not report.expected_missing


def test_norms_of_a_detector_on_convnext():
    cfg = dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        source = MODELS.build(dict(cfg, gap_before_final_norm=False))
        target = MODELS.build(dict(cfg, gap_before_final_norm=False, out_indices=[0, 1, 2, 3]))
    report = load_state_dict(target, source.state_dict(), source='a.pth')
    assert sorted(report.expected_missing) == [
        f'norm{i}.{kind}' for i in range(3) for kind in ('bias', 'weight')]
    assert 'norm3.weight' in report.loaded


def test_batch_norm_counters_of_old_files():
    state = {key: value for key, value in model().state_dict().items() if 'num' not in key}
    report = load_state_dict(model(), state, source='a.pth')
    assert report.expected_missing == ['1.num_batches_tracked'] and report.ratio == 1


# Other sizes.

def vit(size: int) -> nn.Module:
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=size,
                                 patch_size=16))


def test_position_embeddings_are_resized_where_the_model_does_it():
    source, target = vit(32), vit(48)
    nn.init.constant_(source.pos_embed, 3.0)
    report = load_state_dict(target, source.state_dict(), source='a.pth')
    assert report.resized == {'pos_embed': ((1, 5, 16), (1, 10, 16))} and report.ratio == 1
    assert 'resized: 1: pos_embed (checkpoint (1, 5, 16), model (1, 10, 16))\n' in str(report)
    torch.testing.assert_close(target.pos_embed.data, torch.full((1, 10, 16), 3.0))


def test_what_a_model_cannot_resize_is_an_error():
    state = vit(32).state_dict()
    state['pos_embed'] = torch.zeros(3)
    with pytest.raises(CheckpointError, match='VisionTransformer cannot resize'):
        load_state_dict(vit(48), state, source='a.pth')


# init_cfg of a backbone.

class Wrapped(BaseModule):
    """As a detector: a backbone and something else."""

    def __init__(self, backbone: dict, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = nn.Linear(2, 2)


@pytest.fixture
def classifier(tmp_path):
    """File of a classifier whose backbone has no layer scale, and its tensors."""
    state = {**pico().state_dict(), 'head.weight': torch.ones(1)}
    save_checkpoint(tmp_path / 'a.safetensors', state)
    return str(tmp_path / 'a.safetensors'), state


def backbone_cfg(**init) -> dict:
    return dict(type='InternImage', arch='pico', core_op='DCNv4', layer_scale=1.0,
                init_cfg=dict(type='Pretrained', **init))


def test_pretrained_backbone(classifier, monkeypatch):
    said = []
    monkeypatch.setattr(matching, 'print_log', lambda text, **_: said.append(text))
    path, state = classifier
    target = Wrapped(backbone_cfg(checkpoint=path))
    target.init_weights()
    for key, value in state.items():
        assert key == 'head.weight' or torch.equal(target.backbone.state_dict()[key], value)
    title, *lines = said[0].splitlines()
    assert len(said) == 1 and title == f'Loaded {path} into InternImage:'
    assert [line.split(':')[0].strip() for line in lines] == LINES
    assert lines[2] == '  unexpected: 1: head.weight'


def test_pretrained_backbone_with_a_prefix(classifier, tmp_path):
    _, state = classifier
    path = str(tmp_path / 'b.pth')
    torch.save({'state_dict': {**prefixed(state, 'backbone.'), 'neck.x': torch.ones(1)}}, path)
    for prefix in ({}, {'prefix': 'backbone'}, {'prefix': 'backbone.'}):
        target = MODELS.build(backbone_cfg(checkpoint=path, **prefix))
        target.init_weights()
        assert torch.equal(target.patch_embed.conv1.weight, state['patch_embed.conv1.weight'])


def test_pretrained_without_some_names(tmp_path):
    path = str(tmp_path / 'a.pth')
    vit = dict(type='PlainViT', channels=32, depth=4, heads=2, image_size=64, window_size=2,
               pretrain_image_size=64, rel_pos='shared_table')
    source = MODELS.build(vit)
    state = {name: torch.full_like(value, 2) for name, value in source.state_dict().items()}
    torch.save(state, path)
    target = MODELS.build({**vit, 'init_cfg': dict(
        type='Pretrained', checkpoint=path, skip=['global_rel_pos', 'pos_embed'])})
    target.init_weights()
    kept = {name for name, value in target.state_dict().items() if not value.eq(2).all()}
    assert kept == {'pos_embed', 'global_rel_pos.relative_position_bias_table'}
    for skip, words in ((['rel_poss'], r"no name with \['rel_poss'\]"),
                        (['blocks.0'], 'does not fit the model')):
        target = MODELS.build({**vit, 'init_cfg': dict(
            type='Pretrained', checkpoint=path, skip=skip)})
        with pytest.raises(CheckpointError, match=words):
            target.init_weights()
    with pytest.raises(ValueError, match='skip is not valid'):
        CheckedPretrainedInit(path, skip='pos_embed')


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg', 'mmpretrain'])
def test_pretrained_is_ours_in_every_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        built = WEIGHT_INITIALIZERS.build(dict(type='Pretrained', checkpoint='x'))
    assert type(built) is CheckedPretrainedInit


def test_pretrained_backbone_of_another_family(tmp_path):
    path = str(tmp_path / 'a.pth')
    torch.save(model().state_dict(), path)
    target = MODELS.build(backbone_cfg(checkpoint=path))
    with pytest.raises(CheckpointError, match='does not fit the model.*InternImage') as caught:
        target.init_weights()
    assert 'ratio: 0.0%' in str(caught.value) and '`min_match`' in str(caught.value)
    with loading_policy(min_match=0):
        MODELS.build(backbone_cfg(checkpoint=path)).init_weights()


def test_pretrained_backbone_is_read_safely(tmp_path):
    path = str(tmp_path / 'a.pth')
    torch.save({**pico().state_dict(), 'x': nn.Linear(2, 2)}, path)
    target = MODELS.build(backbone_cfg(checkpoint=path))
    with pytest.raises(CheckpointError, match='not executed'):
        target.init_weights()
    with loading_policy(trust=True):
        MODELS.build(backbone_cfg(checkpoint=path)).init_weights()
