"""Drawing where a network samples for one position: which pixel, which layers, which part."""
from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from mmdcn.analysis.sampling import Sampling, record_sampling
from tests.tools.analysis.cases import LAST, backbone
from tools.analysis import sampling_points


@pytest.mark.parametrize('core_op', ['DCNv3', 'DCNv4'])
def test_drawn_points(deformable, tmp_path, core_op):
    made = deformable(core_op)
    assert sampling_points.main([made.config, made.checkpoint, str(made.image), '--groups', '3',
                                 '--position', '0.25', '0.8', '--out-dir', str(tmp_path)]) == 0
    picture = cv2.imread(str(tmp_path / '0_sampling_points.png'))
    assert picture.shape[1] > 1500 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    with np.load(tmp_path / '0_sampling_points.npz') as arrays:
        assert [name[:-7] for name in arrays if name.endswith('.center')] == LAST
        for level, name in enumerate(LAST):
            stride = 2 ** (level + 2)
            groups = (2, 2, 4, 4)[level]
            assert arrays[f'{name}.points'].shape == (groups, 9, 2)
            assert arrays[f'{name}.weights'].shape == (groups, 9)
            center = arrays[f'{name}.center']
            # 64 x 64 pixels: the position is (15.5, 50.7), pixel centers are multiples of stride.
            assert np.all(center % stride == 0) and np.all(center < 64)
            assert np.all(np.abs(center - [15.5, 50.7]) <= stride / 2 + 3.5)
            grid = arrays[f'{name}.grid']
            np.testing.assert_allclose(grid.mean((0, 1)), center)
            np.testing.assert_allclose(grid[0, 3] - grid[0, 0], [1.5 * stride, 0])
            assert not np.allclose(arrays[f'{name}.points'], grid)


def test_look_at_takes_the_samples_of_its_pixel():
    model = backbone()
    image = torch.randn(1, 3, 64, 96)
    with record_sampling(model) as samplings:
        model(image)
    name = LAST[1]
    look = sampling_points.look_at(name, samplings[name], model, (64, 96), (0.5, 0.25))
    x, y = 6, 2  # (47.5, 15.5) is nearest to (48, 16) at stride 8
    assert look.center.tolist() == [48, 16]
    np.testing.assert_allclose(look.points, 8 * samplings[name].points[0, y, x])
    np.testing.assert_allclose(look.weights, samplings[name].weights[0, y, x])


def test_chosen_layers(deformable, tmp_path, capsys):
    made = deformable('DCNv4')
    assert sampling_points.main([made.config, 'none', str(made.image), '--out-dir', str(tmp_path),
                                 '--layers', 'levels.2.**']) == 0
    assert 'levels.2.blocks.0.dcn, levels.2.blocks.1.dcn\n' in capsys.readouterr().out


@pytest.mark.parametrize(('options', 'words'), [
    (['--position', '0.5', '1.5'], '--position is not valid'),
    (['--groups', '0'], '--groups is not valid: got 0'),
    (['--layers', 'levels.0.norm'], '--layers is not valid: got levels.0.norm, expected names of '
                                    'deformable layers: levels.0.blocks.0.dcn'),
    (['--layers', 'stages.0'], "layer is not valid: got 'stages.0'"),
])
def test_bad_options(deformable, tmp_path, capsys, options, words):
    made = deformable('DCNv3')
    assert sampling_points.main([made.config, made.checkpoint, str(made.image), *options,
                                 '--out-dir', str(tmp_path / 'out')]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_networks_without_deformable_layers_are_refused(trained, tmp_path, capsys):
    system = trained('classifier')
    image = str(system.data / 'val' / 'dark' / '0.jpg')
    assert sampling_points.main([system.config, 'none', image, '--out-dir', str(tmp_path)]) == 2
    assert 'MobileNetV2 has no deformable layer' in capsys.readouterr().err
    assert sampling_points.main([system.config, 'absent.pth', image]) == 2
    assert 'checkpoint is not valid: got absent.pth' in capsys.readouterr().err


def coded_sampling(out: tuple[int, int], size: tuple[int, int], groups: int = 1) -> Sampling:
    """A sampling whose points say which output pixel they belong to, in hundreds."""
    height, width = out
    grid = torch.zeros(1, height, width, groups, 2, 2)
    points = grid.clone()
    points[..., 0] = 100.0 * torch.arange(width).view(1, 1, width, 1, 1)
    points[..., 1] = 100.0 * torch.arange(height).view(1, height, 1, 1, 1)
    return Sampling(points, torch.ones(1, height, width, groups, 2), grid, size)


# Images of 64 x 96 pixels, maps of 8 x 12: pixel centers 0, 8, 16, ... or 3.5, 11.5, ...
@pytest.mark.parametrize(('stem', 'position', 'pixel'), [
    ('padded', (0, 0), (0, 0)), ('padded', (1, 1), (11, 7)),
    ('padded', (0.5, 0.5), (6, 4)), ('padded', (12.4 / 96, 0), (1, 0)),
    ('padded', (12.6 / 96, 0), (2, 0)),
    ('patches', (0, 0), (0, 0)), ('patches', (1, 1), (11, 7)),
    ('patches', (15.9 / 96, 0.5), (1, 4)), ('patches', (16.1 / 96, 0.4), (2, 3)),
])
def test_nearest_pixel_of_a_position(stem, position, pixel):
    layer = nn.Conv2d(3, 4, 3, 2, 1) if stem == 'padded' else nn.Conv2d(3, 4, 4, 4)
    look = sampling_points.look_at('layer', coded_sampling((8, 12), (8, 12)),
                                   nn.Sequential(layer), (64, 96), position)
    first = 0 if stem == 'padded' else 3.5
    assert look.center.tolist() == [first + 8 * i for i in pixel]
    assert look.points[0, 0].tolist() == [first + 800 * i for i in pixel]
    assert look.grid[0, 0].tolist() == [first, first] and look.stride == 8


def test_points_of_a_strided_layer_are_in_pixels_of_its_input():
    sampling = coded_sampling((4, 6), (8, 12), groups=3)
    look = sampling_points.look_at('layer', sampling, nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)),
                                   (64, 96), (0.5, 0.25))
    # The output has stride 16: pixel (3, 1); the input has 8.
    assert look.center.tolist() == [48, 16] and look.stride == 8
    assert look.points.shape == (3, 2, 2)
    assert look.points[2, 1].tolist() == [8 * 300, 8 * 100]


@pytest.fixture
def chain() -> tuple[nn.Module, dict[str, Sampling]]:
    model = nn.ModuleDict({name: nn.Identity() for name in ('a', 'b', 'norm', 'c', 'd')})
    sizes = {'a': (8, 8), 'b': (8, 8), 'c': (4, 4), 'd': (2, 4)}
    return model, {name: coded_sampling(size, size) for name, size in sizes.items()}


def test_last_layer_of_each_resolution_is_chosen(chain):
    model, samplings = chain
    assert sampling_points.choose(samplings, model, None) == ['b', 'c', 'd']


def test_layers_are_drawn_in_the_order_of_the_network(chain):
    model, samplings = chain
    assert sampling_points.choose(samplings, model, ['c', 'a']) == ['a', 'c']
    assert sampling_points.choose(samplings, model, ['*']) == list('abcd')


def test_layers_that_do_not_sample_are_refused_with_those_that_do(chain):
    model, samplings = chain
    with pytest.raises(ValueError, match='got norm, .*deformable layers: a, b, c, d'):
        sampling_points.choose(samplings, model, ['norm'])


@pytest.mark.parametrize('count', [1, 2, 5, 8, 32])
@pytest.mark.parametrize('wanted', [1, 2, 3, 6, 40])
def test_groups_are_spread_from_the_first_to_the_last(count, wanted):
    chosen = sampling_points._spread(count, wanted)
    assert len(chosen) == min(count, wanted)
    assert chosen[0] == 0 and (len(chosen) == 1 or chosen[-1] == count - 1)
    gaps = np.diff(chosen)
    assert not len(gaps) or gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


def look_with(points: list, weights: list, stride: int = 4) -> sampling_points.Look:
    points = np.array(points, float)
    return sampling_points.Look('layer', stride, np.array([50.0, 60.0]), points,
                                np.full_like(points, 50), np.array(weights, float))


def test_window_holds_the_points_of_the_drawn_groups():
    look = look_with([[[50, 60], [71, 60]], [[50, 95], [50, 60]]], [[1, 1], [1, 1]])
    for chosen, reach in (([0], 21), ([1], 35), ([0, 1], 35)):
        center, half = sampling_points._window(look, chosen, 200)
        assert center.tolist() == [50, 60] and half == reach + 4


def test_window_is_neither_tiny_nor_far_larger_than_the_image():
    near = look_with([[[50, 60], [51, 60]]], [[1, 1]])
    assert sampling_points._window(near, [0], 200)[1] == 3 * 4
    far = look_with([[[50, 60], [5000, 60]]], [[1, 1]])
    assert sampling_points._window(far, [0], 200)[1] == 150


def test_areas_are_shares_of_the_largest_weight():
    look = look_with([[[0, 0], [0, 0]], [[0, 0], [0, 0]]], [[1, -4], [2, 0]])
    assert sampling_points._shares(look.weights, look).tolist() == [[0.25, 1], [0.5, 0]]
    nothing = look_with([[[0, 0], [0, 0]]], [[0, 0]])
    assert sampling_points._shares(nothing.weights, nothing).tolist() == [[0, 0]]


def test_layers_of_few_and_many_groups_share_a_picture(tmp_path):
    image = np.full((100, 120, 3), 200, np.uint8)
    points = np.random.default_rng(0).uniform(20, 80, (4, 9, 2))
    looks = [look_with(points[:count], np.linspace(-1, 1, 9 * count).reshape(count, 9))
             for count in (1, 4)]
    widths = []
    for groups in (1, 6):
        sampling_points.draw(image, looks, groups, tmp_path / 'x.png')
        widths.append(cv2.imread(str(tmp_path / 'x.png')).shape[1])
    # Two inches at 200 dots per column: one group of one, then four.
    assert widths == [200 * (2 * 2 + 1), 200 * (2 * 5 + 1)]
