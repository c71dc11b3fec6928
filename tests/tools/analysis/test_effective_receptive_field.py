"""Effective receptive fields: known ones, the tool, its refusals."""
from __future__ import annotations

import argparse
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


def profile(*counts: int) -> np.ndarray:
    """A square field whose rows and columns both count as given, summing up to 1."""
    return np.outer(counts, counts) / sum(counts) ** 2


@pytest.mark.parametrize(('layers', 'expected'), [
    ([dict()], profile(1, 1, 1)),
    ([dict(), dict()], profile(1, 2, 3, 2, 1)),
    ([dict(), dict(), dict()], profile(1, 3, 6, 7, 6, 3, 1)),
    # The second kernel takes steps of two pixels of the image.
    ([dict(stride=2), dict()], profile(1, 1, 2, 1, 2, 1, 1)),
    ([dict(dilation=2, padding=2)], profile(1, 0, 1, 0, 1)),
], ids=['one', 'two', 'three', 'strided', 'dilated'])
def test_field_of_stacked_convolutions(layers, expected):
    network = nn.Sequential(*[constant(3, 2 if i else 3, **{'padding': 1, **options})
                              for i, options in enumerate(layers)])
    field, = erf.receptive_fields(network, [torch.rand(1, 3, 24, 32)])
    x, y = map(int, field.center)
    reach = len(expected) // 2
    near = field.map[y - reach:y + reach + 1, x - reach:x + reach + 1]
    np.testing.assert_allclose(near, expected, rtol=1e-6)
    assert field.map.sum() == pytest.approx(near.sum())


def test_contributions_are_absolute():
    layer = constant(3, padding=1)
    with torch.no_grad():
        layer.weight[:, :, 0] = -2
        layer.bias.fill_(100)
    field, = erf.receptive_fields(layer, [torch.rand(1, 3, 9, 9)])
    assert field.map[3, 3:6] == pytest.approx([2 / 12] * 3)
    assert field.map[4:6, 3:6] == pytest.approx(np.full((2, 3), 1 / 12))


def test_channels_below_zero_do_not_count():
    layer = constant(3, padding=1)
    with torch.no_grad():
        layer.weight[0, :, :, 1:] = 0
        layer.bias[1] = -100
    field, = erf.receptive_fields(layer, [torch.rand(1, 3, 9, 9)])
    assert np.argwhere(field.map > 0).tolist() == [[3, 3], [4, 3], [5, 3]]


def test_images_count_by_their_gradients():
    """An image whose middle is below zero adds nothing; the others give the field."""
    image = torch.rand(1, 3, 9, 9)
    alone, = erf.receptive_fields(constant(3, padding=1), [image])
    both, = erf.receptive_fields(constant(3, padding=1), [-10 - image, image])
    np.testing.assert_allclose(both.map, alone.map)


def uniform(height: int, width: int, center: tuple[float, float]) -> erf.Field:
    return erf.Field('stage 1', 1, center, np.full((height, width), 1 / (height * width)))


@pytest.mark.parametrize(('center', 'share', 'pixels'), [
    ((2, 2), 1 / 25, 1), ((2, 2), 9 / 25, 9), ((2, 2), 9.1 / 25, 25), ((2, 2), 1.0, 25),
    # In a corner the square ends where the image does.
    ((0, 0), 1 / 25, 1), ((0, 0), 4 / 25, 4), ((0, 0), 5 / 25, 9), ((4, 2), 6 / 25, 6),
    # Between four pixels.
    ((1.5, 1.5), 1 / 25, 4), ((1.5, 1.5), 5 / 25, 16),
])
def test_side_of_the_least_square(center, share, pixels):
    field = uniform(5, 5, center)
    assert erf.side_of_share(field, share) == pytest.approx((pixels / 25) ** 0.5)


def test_side_is_relative_to_the_area_of_the_image():
    assert erf.side_of_share(uniform(4, 16, (8, 2)), 0.01) == pytest.approx((1 / 64) ** 0.5)
    # Rows -2..1 and columns -2..2: what lies beyond the upper and lower border is left out.
    assert erf.side_of_share(uniform(4, 16, (8, 2)), 13 / 64) == pytest.approx((20 / 64) ** 0.5)


def test_all_of_a_field_is_within_the_image_in_spite_of_rounding():
    field = uniform(30, 30, (15, 15))
    field.map *= 1 - 1e-7
    assert erf.side_of_share(field, 1.0) == 1.0


def test_noise_depends_on_the_seed_alone():
    def draw(**changes):
        options = dict(noise=2, size=[32, 40], seed=0, device='cpu') | changes
        return list(erf._inputs(None, [], argparse.Namespace(**options)))

    first = draw()
    assert [image.shape for image in first] == [(1, 3, 32, 40)] * 2
    assert not torch.equal(*first)
    assert all(torch.equal(*pair) for pair in zip(first, draw(), strict=True))
    assert not torch.equal(first[0], draw(seed=1)[0])
    assert draw(size=None)[0].shape == (1, 3, 224, 224)


def test_photographs_are_resized_where_a_size_is_given():
    photo = torch.full((1, 3, 50, 60), 0.25)
    predictor = argparse.Namespace(read=lambda path: photo)
    options = argparse.Namespace(noise=0, size=[32, 48])
    resized, = erf._inputs(predictor, ['x.jpg'], options)
    assert resized.shape == (1, 3, 32, 48)
    torch.testing.assert_close(resized, torch.full_like(resized, 0.25))
    options.size = None
    assert list(erf._inputs(predictor, ['x.jpg'], options)) == [photo]
