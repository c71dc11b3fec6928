"""Tools that draw and measure sampling points."""
from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from mmcls_custom.backbones import InternImage
from mmdcn.analysis.sampling import record_sampling
from tests.systems import randomise
from tools.analysis import sampling_points, sampling_stats

LAST = ['levels.0.blocks.0.dcn', 'levels.1.blocks.0.dcn', 'levels.2.blocks.1.dcn',
        'levels.3.blocks.0.dcn']


def backbone(**options):
    return randomise(InternImage(channels=16, depths=(1, 1, 2, 1), groups=(2, 2, 4, 4),
                                 **options)).eval()


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


def test_statistics_of_known_offsets():
    model = backbone(core_op='DCNv3', offset_scale=2.0)
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, 'offset') and hasattr(module, 'mask'):
                for layer in (module.offset, module.mask):
                    layer.weight.zero_()
                    layer.bias.zero_()
                module.offset.bias.view(-1, 2)[:] = torch.tensor([3.0, 4.0])
    with record_sampling(model) as samplings:
        model(torch.randn(2, 3, 128, 128))
    stats = sampling_stats.LayerStats(8)
    stats.add(samplings[LAST[1]])
    got = stats.summary()
    assert [got[f'offset_{key}'] for key in ('mean', 'p50', 'p95', 'max')] == [10.0] * 4
    assert got['offset_mean_image'] == 80
    # 16 pixels: samples at x + 6 + (-2, 0, 2) and y + 8 + (-2, 0, 2).
    inside = [np.mean([0 <= i + shift + tap < 16 for i in range(16) for tap in (-2, 0, 2)])
              for shift in (6, 8)]
    assert got['outside'] == pytest.approx(1 - inside[0] * inside[1])
    assert got['weight_mean'] == pytest.approx(1 / 9) and got['weight_negative'] == 0
    assert got['weight_std'] == pytest.approx(0, abs=1e-4)
    assert got['effective_points'] == pytest.approx(9)


def test_statistics_over_images_are_those_of_all_samples():
    model = backbone(core_op='DCNv4')
    stats, lengths, weights = sampling_stats.LayerStats(4), [], []
    for size in (64, 96):
        with record_sampling(model) as samplings:
            model(torch.randn(1, 3, size, size))
        sampling = samplings[LAST[0]]
        stats.add(sampling)
        lengths.append((sampling.points - sampling.grid).norm(dim=-1).flatten())
        weights.append(sampling.weights.flatten(0, -2))
    got, lengths, weights = stats.summary(), torch.cat(lengths), torch.cat(weights)
    assert got['offset_mean'] == pytest.approx(lengths.mean().item(), rel=1e-5)
    assert got['offset_p95'] == pytest.approx(lengths.quantile(0.95).item(), rel=1e-5)
    assert got['weight_std'] == pytest.approx(weights.std().item(), rel=1e-3)
    assert got['weight_negative'] == pytest.approx((weights < 0).float().mean().item(), rel=1e-5)
    effective = weights.abs().sum(-1) ** 2 / (weights ** 2).sum(-1)
    assert got['effective_points'] == pytest.approx(effective.mean().item(), rel=1e-5)


def test_table_and_json(deformable, tmp_path, capsys):
    made = deformable('DCNv3')
    assert sampling_stats.main([made.config, made.checkpoint, str(made.image.parent),
                                '--out-dir', str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f'sampling_stats.py: 5 layers, 3 images; results in {tmp_path}'
    rows = json.loads((tmp_path / 'sampling_stats.json').read_text())
    assert list(rows) == [LAST[0], LAST[1], 'levels.2.blocks.0.dcn', LAST[2], LAST[3]]
    for line, (name, row) in zip(lines[-6:-1], rows.items(), strict=True):
        assert line.startswith(name) and f'{row["offset_mean"]:.4f}' in line
        assert row['points'] == 9 and row['offset_mean'] > 0 and 1 < row['effective_points'] <= 9
    assert [row['stride'] for row in rows.values()] == [4, 8, 16, 16, 32]


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
