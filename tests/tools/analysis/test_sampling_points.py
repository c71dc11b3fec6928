"""The tool that draws sampling points."""
from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from mmdcn.analysis.sampling import record_sampling
from tests.tools.analysis.cases import LAST, backbone
from tools.analysis import sampling_points, sampling_stats


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
    for tool in (sampling_points, sampling_stats):
        assert tool.main([system.config, 'none', image, '--out-dir', str(tmp_path)]) == 2
        assert 'MobileNetV2 has no deformable layer' in capsys.readouterr().err
        assert tool.main([system.config, 'absent.pth', image]) == 2
        assert 'checkpoint is not valid: got absent.pth' in capsys.readouterr().err
