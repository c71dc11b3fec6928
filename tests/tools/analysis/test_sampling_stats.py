"""The tool that measures sampling points."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mmdcn.analysis.sampling import record_sampling
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
