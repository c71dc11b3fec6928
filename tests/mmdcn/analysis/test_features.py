"""Features by layer name."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from mmcls_custom.backbones import FlashInternImage
from mmdcn.analysis import get_features, record_features

TINY = dict(channels=32, depths=(1, 1, 2, 1), groups=(2, 4, 8, 16))
IMAGE = torch.randn(2, 3, 48, 40)


class Parts(nn.Module):
    """A convolution, an activation that works in place, and outputs of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU(inplace=True)
        self.outputs = _Outputs()
        self.idle = nn.Identity()
        self.text = _Text()

    def forward(self, x):
        x = self.act(self.conv(x))
        self.text(x)
        return self.outputs(x)


class _Outputs(nn.Module):
    def forward(self, x):
        return x, {'half': x / 2, 'more': [x * 3, 'no tensor']}


class _Text(nn.Module):
    def forward(self, x):
        return 'no tensor'


def test_outputs_by_name_and_pattern():
    model = FlashInternImage(**TINY).eval()
    features = get_features(model, IMAGE, ['patch_embed', 'levels.*', 'levels.2.blocks.*.mlp'])
    assert list(features) == ['patch_embed', 'levels.0.0', 'levels.0.1', 'levels.1.0',
                              'levels.1.1', 'levels.2.blocks.0.mlp', 'levels.2.blocks.1.mlp',
                              'levels.2.0', 'levels.2.1', 'levels.3.0', 'levels.3.1']
    assert features['patch_embed'].shape == (2, 12, 10, 32)
    for level, out in enumerate(model(IMAGE)):
        assert torch.equal(features[f'levels.{level}.0'].permute(0, 3, 1, 2), out)
    inside = get_features(model, IMAGE, ['levels.3.**'])
    assert set(inside) > {'levels.3.blocks.0.dcn.value_proj', 'levels.3.norm.0'}


def test_no_graph_unless_asked():
    model = FlashInternImage(**TINY).eval()
    image = IMAGE.clone().requires_grad_()
    feature, = get_features(model, image, ['patch_embed.conv1']).values()
    assert not feature.requires_grad
    feature, = get_features(model, image, ['patch_embed.conv1'], grad=True).values()
    gradient, = torch.autograd.grad(feature.sum(), image)
    assert gradient.abs().sum() > 0


def test_layers_behind_do_not_change_what_was_recorded():
    model = Parts()
    features = get_features(model, IMAGE, ['conv', 'act'])
    assert torch.equal(features['conv'], model.conv(IMAGE)) and features['conv'].min() < 0
    assert torch.equal(features['act'], features['conv'].clamp(min=0))


def test_nested_outputs_and_several_calls():
    model = Parts()
    with record_features(model, ['outputs']) as features:
        model(IMAGE)
        model(IMAGE + 1)
    names = ['outputs.0', 'outputs.1.half', 'outputs.1.more.0']
    assert list(features) == names + [name.replace('outputs', 'outputs@1') for name in names]
    assert not torch.equal(features['outputs.0'], features['outputs@1.0'])


@pytest.mark.parametrize(('layers', 'words'), [
    (['level.0'], "layer is not valid: got 'level.0'.*did you mean levels.0"),
    (['levels.7.*'], "got 'levels.7.\\*'"),
    (['xyz'], 'the parts of the model are patch_embed, levels'),
    ([''], "got ''"),
    ('levels.0', r"layers is not valid: got 'levels.0', expected a list"),
])
def test_unknown_layers_are_refused(layers, words):
    with pytest.raises(ValueError, match=words):
        get_features(FlashInternImage(**TINY), IMAGE, layers)


@pytest.mark.parametrize(('layer', 'words'), [('idle', 'idle was not called'),
                                              ('text', 'text puts out no tensor')])
def test_silent_layers_are_refused(layer, words):
    with pytest.raises(ValueError, match=words):
        get_features(Parts(), IMAGE, [layer])


@pytest.mark.parametrize('image', [IMAGE, torch.zeros(1, 4, 8, 8)])
def test_no_hook_stays_behind(image):
    model = Parts()
    with pytest.raises((RuntimeError, ValueError)):  # an idle layer, or too many channels
        get_features(model, image, ['**', 'idle'])
    assert not any(module._forward_hooks for module in model.modules())
