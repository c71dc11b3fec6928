"""Statistics of sampling points: lengths, percentiles, shares outside, weights."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mmdcn.analysis.sampling import Sampling, record_sampling
from tests.tools.analysis.cases import LAST, backbone
from tools.analysis import sampling_stats


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


def test_networks_without_deformable_layers_are_refused(trained, tmp_path, capsys):
    system = trained('classifier')
    image = str(system.data / 'val' / 'dark' / '0.jpg')
    assert sampling_stats.main([system.config, 'none', image, '--out-dir', str(tmp_path)]) == 2
    assert 'MobileNetV2 has no deformable layer' in capsys.readouterr().err
    assert sampling_stats.main([system.config, 'absent.pth', image]) == 2
    assert 'checkpoint is not valid: got absent.pth' in capsys.readouterr().err


def sampling_of(lengths: list[float], weights: list[list[float]] | None = None,
                size: tuple[int, int] = (4, 4)) -> Sampling:
    """One output pixel and group per row of weights; points that lie to the right of (0, 0)."""
    points = torch.zeros(1, 1, len(lengths) if weights is None else len(weights), 1, 1, 2)
    weights = torch.ones(len(lengths), 1) if weights is None else torch.tensor(weights)
    points = points.expand(-1, -1, -1, -1, weights.shape[1], -1).clone()
    grid = torch.zeros_like(points)
    points[..., 0] = torch.tensor(lengths).view(1, 1, len(points[0, 0]), 1, -1)
    return Sampling(points, weights.view(1, 1, -1, 1, weights.shape[1]), grid, size)


def summary(*samplings: Sampling, stride: int = 1) -> dict[str, float]:
    stats = sampling_stats.LayerStats(stride)
    for sampling in samplings:
        stats.add(sampling)
    return stats.summary()


def test_percentiles_by_hand():
    got = summary(sampling_of([float(i) for i in range(1, 102)]), stride=16)
    assert (got['offset_p50'], got['offset_p95'], got['offset_max']) == (51, 96, 101)
    assert got['offset_mean'] == 51 and got['offset_mean_image'] == 16 * 51


def test_length_is_the_distance_from_the_undeformed_kernel():
    sampling = sampling_of([0.0])
    moved = Sampling(sampling.points + torch.tensor([7.0, 4.0]), sampling.weights,
                     sampling.grid + torch.tensor([4.0, 0.0]), (9, 9))
    assert summary(moved)['offset_mean'] == 5


# A map four pixels wide has zeros at -1 and 4: only from there on nothing is left.
@pytest.mark.parametrize(('x', 'outside'), [
    (0, 0), (3, 0), (3.9, 0), (4, 1), (9, 1), (-0.9, 0), (-1, 1)])
def test_share_outside(x, outside):
    assert summary(sampling_of([float(x), 1.0]))['outside'] == outside / 2


@pytest.mark.parametrize(('weights', 'effective', 'negative'), [
    ([1, 0, 0, 0], 1, 0), ([0.25] * 4, 4, 0), ([5.0] * 4, 4, 0), ([3, 3, 0, 0], 2, 0),
    ([1, -1, 0, 0], 2, 1 / 4), ([-2, -2, -2, -2], 4, 1), ([0, 0, 0, 0], 0, 0),
    ([3, 1, 0, 0], 16 / 10, 0)])
def test_effective_points_by_hand(weights, effective, negative):
    got = summary(sampling_of([0.0], [[float(weight) for weight in weights]]))
    assert got['effective_points'] == pytest.approx(effective)
    assert got['weight_negative'] == negative
    assert got['weight_mean'] == pytest.approx(np.mean(weights))
    assert got['weight_std'] == pytest.approx(np.std(weights), abs=1e-6)


def test_pixels_without_weights_do_not_spoil_the_mean():
    got = summary(sampling_of([0.0, 0.0], [[1.0, 1.0], [0.0, 0.0]]))
    assert got['effective_points'] == 1


def test_images_count_by_their_samples():
    got = summary(sampling_of([5.0]), sampling_of([1.0] * 3))
    assert got['offset_mean'] == 2 and got['offset_max'] == 5


def test_many_samples_are_thinned_for_percentiles_alone(monkeypatch):
    monkeypatch.setattr(sampling_stats.LayerStats, 'kept', 100)
    lengths = torch.arange(1000.0).tolist()
    stats = sampling_stats.LayerStats(1)
    for _ in range(2):
        stats.add(sampling_of(lengths))
    assert [len(part) for part in stats.lengths] == [100, 100]
    got = stats.summary()
    assert got['offset_mean'] == 499.5 and got['offset_max'] == 999
    assert got['offset_p50'] == pytest.approx(500, abs=10)
    assert got['offset_p95'] == pytest.approx(950, abs=10)


def test_layers_are_collected_over_images_of_their_own_sizes():
    class Stand:
        backbone = backbone()

        def read(self, size):
            return torch.randn(1, 3, *size)

    stats = sampling_stats.collect(Stand(), [(64, 64), (32, 96)])
    assert [layer.stride for layer in stats.values()] == [4, 8, 16, 16, 32]
    # Stage 1 has two groups, stage 4 has four: 9 points per pixel and group.
    first, *_, last = stats.values()
    assert first.samples == (16 * 16 + 8 * 24) * 2 * 9
    assert last.samples == (2 * 2 + 1 * 3) * 4 * 9 and last.points == 9


def test_columns_of_the_table_are_aligned():
    row = dict.fromkeys(sampling_stats.COLUMNS, 1.5)
    head, *lines = sampling_stats.format_table({'a': row, 'a.longer.name': row}).splitlines()
    assert len({len(line) for line in (head, *lines)}) == 1
    assert [line.split()[0] for line in lines] == ['a', 'a.longer.name']
    for title in sampling_stats.COLUMNS.values():
        end = head.index(title) + len(title)
        assert all(line[:end].endswith(' 1.5000') for line in lines)
