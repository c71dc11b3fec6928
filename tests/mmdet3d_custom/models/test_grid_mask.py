"""GridMask against a mask that is drawn band by band."""
from __future__ import annotations

import pytest
import torch

pytest.importorskip('mmdet3d_custom')
from mmdet3d_custom.models import grid_mask  # noqa: E402
from mmdet3d_custom.models.grid_mask import GridMask  # noqa: E402


def drawn(height: int, width: int, period: int, rows: int, columns: int) -> torch.Tensor:
    """Bands in a canvas half as large again, cut from its middle; True where kept."""
    tall, wide = int(1.5 * height), int(1.5 * width)
    length = max(min(int(period * 0.5 + 0.5), period - 1), 1)
    canvas = torch.zeros(tall, wide, dtype=torch.bool)
    for i in range(tall // period):
        canvas[period * i + rows:min(period * i + rows + length, tall)] = True
    for i in range(wide // period):
        canvas[:, period * i + columns:min(period * i + columns + length, wide)] = True
    top, left = (tall - height) // 2, (wide - width) // 2
    return canvas[top:top + height, left:left + width]


@pytest.mark.parametrize(('period', 'rows', 'columns'), [
    (2, 0, 1), (5, 3, 0), (7, 6, 2), (16, 9, 15), (30, 0, 0), (30, 29, 17)])
def test_the_mask_is_the_drawn_one(monkeypatch, period, rows, columns):
    numbers, bounds = iter([period, rows, columns]), []

    def draw(low: int, high: int) -> int:
        bounds.append((low, high))
        return next(numbers)

    monkeypatch.setattr(grid_mask, '_draw', draw)
    got = GridMask(prob=1.0)(torch.ones(1, 2, 3, 31, 44))
    assert bounds == [(2, 31), (0, period), (0, period)]
    expected = drawn(31, 44, period, rows, columns)
    assert 0 < int(expected.sum()) < expected.numel() or period == 2
    assert torch.equal(got, expected.float().expand(1, 2, 3, -1, -1))


def test_cameras_share_a_mask_and_samples_do_not():
    torch.manual_seed(1)
    got = GridMask(prob=1.0)(torch.ones(4, 6, 3, 40, 50))
    assert (got == got[:, :1, :1]).all()
    assert not all(torch.equal(got[0], each) for each in got[1:])


def test_probability_and_mode():
    images = torch.randn(2, 6, 3, 20, 20)
    mask = GridMask(prob=1.0)
    assert mask.eval()(images) is images
    assert torch.equal(GridMask(prob=0.0)(images), images)
    torch.manual_seed(0)
    hit = [not torch.equal(GridMask(prob=0.7)(each[None]), each[None])
           for each in torch.randn(300, 1, 3, 20, 20)]
    assert 0.6 < sum(hit) / 300 < 0.8
