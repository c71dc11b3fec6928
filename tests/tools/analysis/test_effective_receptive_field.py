"""Effective receptive fields: known ones, the tool, its refusals."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from tools.analysis import effective_receptive_field as erf


def constant(kernel: int, channels: int = 3, **options: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, 2, kernel, **options)
    nn.init.ones_(layer.weight)
    nn.init.ones_(layer.bias)
    return layer


def test_field_of_one_convolution():
    images = [torch.rand(1, 3, 20, 24) for _ in range(3)]
    field, = erf.receptive_fields(constant(5, stride=2, padding=2), images)
    assert field.stride == 2 and field.center == (12, 10)
    expected = np.zeros((20, 24))
    expected[8:13, 10:15] = 1 / 25
    np.testing.assert_allclose(field.map, expected, atol=1e-9)
    assert erf.side_of_share(field, 1.0) == pytest.approx((25 / 480) ** 0.5)
    assert erf.side_of_share(field, 9 / 25) == pytest.approx((9 / 480) ** 0.5)
    assert erf.side_of_share(field, 0.01) == pytest.approx((1 / 480) ** 0.5)


def test_stages_of_a_network_grow(deformable, tmp_path):
    made = deformable('DCNv3')
    assert erf.main([made.config, made.checkpoint, str(made.image.parent), '--size', '96', '128',
                     '--out-dir', str(tmp_path)]) == 0
    report = json.loads((tmp_path / 'effective_receptive_field.json').read_text())
    assert [entry['stride'] for entry in report] == [4, 8, 16, 32]
    assert [entry['center'] for entry in report] == [[64, 48]] * 3 + [[64, 32]]
    sides = [entry['sides']['0.5'] for entry in report]
    assert sides == sorted(sides) and sides[0] < sides[-1]
    with np.load(tmp_path / 'effective_receptive_field.npz') as arrays:
        assert list(arrays) == ['stage1', 'stage2', 'stage3', 'stage4']
        for array in arrays.values():
            assert array.shape == (96, 128) and array.sum() == pytest.approx(1)
    assert (tmp_path / 'effective_receptive_field.png').stat().st_size > 10_000


@pytest.mark.parametrize('task', ['classifier', 'detector', 'segmentor'])
def test_noise_and_networks_of_every_task(trained, tmp_path, capsys, task):
    system = trained(task)
    assert erf.main([system.config, system.checkpoint, '--noise', '2', '--size', '64', '96',
                     '--out-dir', str(tmp_path)]) == 0
    stages = {'classifier': 1, 'detector': 4, 'segmentor': 2}[task]
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith('stage ')]) == stages
    assert lines[-1].startswith('effective_receptive_field.py: 2 images; ')


def test_pooled_networks_show_their_stages():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList([constant(3, stride=2, padding=1),
                                         constant(1, 2), nn.Flatten()])

        def forward(self, x):
            for stage in self.stages:
                x = stage(x)
            return x

    fields = erf.receptive_fields(Pooled(), [torch.rand(1, 3, 12, 12)])
    assert [field.name for field in fields] == ['stage 1', 'stage 2']
    assert [(field.map > 0).sum() for field in fields] == [9, 9]


def test_images_of_several_sizes_are_refused():
    with pytest.raises(ValueError, match=r'got \(8, 9\) after \(8, 8\).*--size H W'):
        erf.receptive_fields(constant(3, padding=1),
                             [torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9)])


def test_networks_that_give_nothing_are_refused():
    with pytest.raises(ValueError, match='does not reach the middle of stage 1'):
        layer = constant(3, padding=1)
        nn.init.zeros_(layer.weight)
        erf.receptive_fields(layer, [torch.rand(1, 3, 8, 8)])
    with pytest.raises(ValueError, match='Flatten gives no feature map'):
        erf.receptive_fields(nn.Flatten(), [torch.rand(1, 3, 8, 8)])


@pytest.mark.parametrize(('options', 'words'), [
    ([], '--noise is not valid: got 0 and 0 images'),
    (['--noise', '2', '--size', '8', '64'], '--size is not valid'),
])
def test_bad_options(deformable, tmp_path, capsys, options, words):
    made = deformable('DCNv3')
    assert erf.main([made.config, 'none', *options, '--out-dir', str(tmp_path / 'out')]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
