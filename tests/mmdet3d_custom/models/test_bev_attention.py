"""Attention of the BEV encoder against loops over samples, cameras, heads and points."""
from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip('mmdet3d_custom')
from mmdet3d_custom.models.bev_attention import (  # noqa: E402
    MSDeformableAttention3D,
    SpatialCrossAttention,
    TemporalSelfAttention,
    collect_hits,
)

SHAPES = torch.tensor([[3, 5], [2, 3]])
STARTS = torch.tensor([0, 15])
ROWS = 21


def bilinear(grid: Tensor, x: float, y: float) -> Tensor:
    """A map (h, w, C) at (x, y) in 0..1 of its outer edges; zero outside of the pixel centers."""
    height, width = grid.shape[:2]
    column, row = x * width - 0.5, y * height - 0.5
    left, top = math.floor(column), math.floor(row)
    out = torch.zeros(grid.shape[2])
    for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= i < height and 0 <= j < width:
            out = out + grid[i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return out


def wake(module: nn.Module) -> nn.Module:
    """Offsets and weights that depend on the query."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if 'sampling_offsets' in name or 'attention_weights' in name:
                parameter.normal_(std=0.5)
    return module.eval()


@torch.no_grad()
def naive_3d(module: MSDeformableAttention3D, query: Tensor, value: Tensor,
             points: Tensor) -> Tensor:
    """One query (C,) of one camera, value (S, C), points (D, 2)."""
    heads, levels, count = module.num_heads, module.num_levels, module.num_points
    offsets = module.sampling_offsets(query).view(heads, levels, count, 2)
    weights = module.attention_weights(query).view(heads, -1).softmax(-1)
    weights = weights.view(heads, levels, count)
    value = module.value_proj(value).view(ROWS, heads, -1)
    out = []
    for head in range(heads):
        total = torch.zeros(value.shape[2])
        for level, (height, width) in enumerate(SHAPES.tolist()):
            grid = value[STARTS[level]:STARTS[level] + height * width, head]
            grid = grid.view(height, width, -1)
            for point in range(count):
                reference = points[point % module.num_heights]  # the height is the fast axis
                x = float(reference[0] + offsets[head, level, point, 0] / width)
                y = float(reference[1] + offsets[head, level, point, 1] / height)
                total = total + weights[head, level, point] * bilinear(grid, x, y)
        out.append(total)
    return torch.cat(out)


def make_sca(dropout: float = 0.0) -> SpatialCrossAttention:
    return wake(SpatialCrossAttention(8, num_heads=2, num_levels=2, num_points=6, num_heights=3,
                                      dropout=dropout))


def sca_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query (2, 7, 8), value (2, 3, S, 8), points (2, 3, 7, 3, 2) and who sees them."""
    points = torch.rand(2, 3, 7, 3, 2) * 1.4 - 0.2
    inside = torch.rand(2, 3, 7, 3) < 0.3
    inside[0, 1] = False  # a camera that sees nothing
    inside[:, :, 4] = False  # a query that nobody sees
    return torch.randn(2, 7, 8), torch.randn(2, 3, ROWS, 8), points, inside


def test_spatial_cross_attention_is_that_of_loops():
    module = make_sca()
    query, value, points, inside = sca_inputs()
    expected = torch.zeros_like(query)
    for sample in range(2):
        for index in range(7):
            total, cameras = torch.zeros(8), 0
            for camera in range(3):
                if inside[sample, camera, index].any():
                    cameras += 1
                    total = total + naive_3d(module.deformable_attention, query[sample, index],
                                             value[sample, camera], points[sample, camera, index])
            mean = module.output_proj(total / max(cameras, 1))
            expected[sample, index] = mean + query[sample, index]
    hits = collect_hits(points, inside)
    got = module(query, value=value, camera_hits=hits, spatial_shapes=SHAPES,
                 level_start_index=STARTS)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    # The layer's positional encoding is not for the cameras.
    again = module(query, value=value, camera_hits=hits, spatial_shapes=SHAPES,
                   level_start_index=STARTS, query_pos=torch.randn_like(query))
    assert torch.equal(again, got)


@torch.no_grad()
def test_temporal_self_attention_is_that_of_loops_over_both_entries():
    height, width = 3, 4
    module = wake(TemporalSelfAttention(8, num_heads=2, num_points=3, dropout=0.0))
    query, pos = torch.randn(2, 12, 8), torch.randn(2, 12, 8)
    centers = torch.tensor([[(column + 0.5) / width, (row + 0.5) / height]
                            for row in range(height) for column in range(width)])
    expected = torch.zeros_like(query)
    stacked = torch.stack([query, query], 1).flatten(0, 1)  # B * queue
    values = module.value_proj(stacked).view(2, 2, height, width, 2, 4)
    for sample in range(2):
        for index in range(12):
            both = torch.cat([query[sample, index], query[sample, index] + pos[sample, index]])
            offsets = module.sampling_offsets(both).view(2, 2, 3, 2)  # head, queue, point
            weights = module.attention_weights(both).view(2, 2, 3).softmax(-1)
            entries = []
            for entry in range(2):
                heads = []
                for head in range(2):
                    total = torch.zeros(4)
                    for point in range(3):
                        x, y = centers[index] + offsets[head, entry, point] / torch.tensor(
                            [width, height])
                        total = total + weights[head, entry, point] * bilinear(
                            values[sample, entry, :, :, head], float(x), float(y))
                    heads.append(total)
                entries.append(torch.cat(heads))
            out = module.output_proj((entries[0] + entries[1]) / 2)
            expected[sample, index] = out + query[sample, index]
    got = module(query, query_pos=pos, bev_points=centers,
                 bev_shape=torch.tensor([[height, width]]))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_each_sample_has_its_own_lists():
    module = make_sca()
    query, value, points, inside = sca_inputs()

    def run(rows: slice) -> Tensor:
        return module(query[rows], value=value[rows], camera_hits=collect_hits(
            points[rows], inside[rows]), spatial_shapes=SHAPES, level_start_index=STARTS)

    together, alone = run(slice(0, 2)), torch.cat([run(slice(0, 1)), run(slice(1, 2))])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    inside[1] = inside[0]
    assert not torch.allclose(run(slice(1, 2)), alone[1:])


def test_lists_hold_what_cameras_see():
    _, _, points, inside = sca_inputs()
    hits = collect_hits(points, inside)
    rows = hits.rows.view(6, -1)
    for pair in range(6):
        sample, camera = divmod(pair, 3)
        seen = [i for i in range(7) if inside[sample, camera, i].any()]
        listed = rows[pair][hits.valid[pair]]
        assert listed.tolist() == [sample * 7 + i for i in seen]
        kept = hits.points[pair][hits.valid[pair]]
        assert torch.equal(kept, points[sample, camera, seen])
    assert hits.count[0, 4] == 1
    assert hits.count[1, 0] == max(1, int(inside[1, :, 0].any(-1).sum()))


def test_points_that_are_not_finite_stay_outside():
    points = torch.tensor([math.inf, -math.inf, math.nan, 3e38]).view(1, 1, 1, 2, 2)
    hits = collect_hits(points, torch.tensor([True, False]).view(1, 1, 1, 2))
    assert hits.points.isfinite().all() and (hits.points.abs() > 2).all()


def test_without_any_hit_the_weights_still_have_gradients():
    module = make_sca()
    query, value, points, inside = sca_inputs()
    hits = collect_hits(points, torch.zeros_like(inside))
    out = module(query, value=value, camera_hits=hits, spatial_shapes=SHAPES,
                 level_start_index=STARTS)
    torch.testing.assert_close(out, query + module.output_proj.bias)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize('module', [
    MSDeformableAttention3D(16, 8, 3, 8, 4), TemporalSelfAttention(16, 8, 4)],
    ids=['3d', 'temporal'])
def test_initial_offsets_are_a_compass(module):
    nn.init.normal_(module.sampling_offsets.bias)
    module.init_weights()
    repeats = 3 if isinstance(module, MSDeformableAttention3D) else 2
    bias = module.sampling_offsets.bias.view(8, repeats, module.num_points, 2)
    compass = torch.tensor([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)])
    for point in range(module.num_points):
        expected = (compass * (point + 1.0))[:, None].expand(-1, repeats, -1)
        torch.testing.assert_close(bias[:, :, point], expected, rtol=0, atol=1e-5)
    assert not module.sampling_offsets.weight.any()
    assert not module.attention_weights.weight.any() and not module.attention_weights.bias.any()
    assert not module.value_proj.bias.any()


def test_autocast_keeps_locations_exact():
    module = make_sca()
    query, value, points, inside = sca_inputs()
    hits = collect_hits(points, inside)
    options = dict(camera_hits=hits, spatial_shapes=SHAPES, level_start_index=STARTS)
    exact = module(query, value=value, **options)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = module(query, value=value, **options)
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.1)


@pytest.mark.parametrize(('build', 'words'), [
    (lambda: MSDeformableAttention3D(10, 4), 'num_heads is not valid: got 4'),
    (lambda: MSDeformableAttention3D(16, 4, num_points=6, num_heights=4),
     'num_points is not valid: got 6'),
    (lambda: SpatialCrossAttention(batch_first=False), 'batch_first'),
    (lambda: TemporalSelfAttention(batch_first=False), 'batch_first'),
    (lambda: collect_hits(torch.rand(1, 2, 3, 4, 2), torch.ones(1, 2, 3)), 'inside.shape'),
    (lambda: make_sca()(torch.rand(1, 7, 8), value=torch.rand(2, 3, ROWS, 8), camera_hits=None,
                        spatial_shapes=SHAPES, level_start_index=STARTS), 'value.shape'),
])
def test_bad_arguments_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
