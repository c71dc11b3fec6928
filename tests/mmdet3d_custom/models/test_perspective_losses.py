"""Losses of the perspective head against values by hand and loops."""
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmdet3d_custom.models import perspective_geometry as geometry
from mmdet3d_custom.models import perspective_losses as losses
from tests.mmdet3d_custom.models import perspective_scene as scene


def boxes(seed: int, count: int = 5) -> geometry.CameraBoxes:
    drawn = scene.draw_boxes(np.random.default_rng(seed), count)
    fields = (torch.tensor(drawn[name]) for name in ('quaternions', 'centers', 'sizes'))
    return geometry.camera_boxes(*fields, torch.tensor(np.linalg.inv(scene.INTRINSICS)).expand(
        count, 3, 3))


def test_giou_is_that_of_boxes() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.uniform(1, 20, (2, 8, 4))
    got = losses.giou_loss(torch.tensor(first), torch.tensor(second))
    for value, a, b in zip(got, first, second, strict=True):
        area_a, area_b = (a[0] + a[2]) * (a[1] + a[3]), (b[0] + b[2]) * (b[1] + b[3])
        overlap = (min(a[0], b[0]) + min(a[2], b[2])) * (min(a[1], b[1]) + min(a[3], b[3]))
        hull = (max(a[0], b[0]) + max(a[2], b[2])) * (max(a[1], b[1]) + max(a[3], b[3]))
        union = area_a + area_b - overlap
        giou = (overlap + 1) / (union + 1) - (hull - union) / hull
        assert float(value) == pytest.approx(1 - giou)


def test_giou_of_the_box_itself_and_of_nothing() -> None:
    sides = torch.tensor([[1., 2, 3, 4], [5, 6, 7, 8]])
    assert losses.giou_loss(sides, sides).tolist() == pytest.approx([0, 0], abs=1e-6)
    nothing = torch.zeros(2, 4, requires_grad=True)
    losses.giou_loss(nothing, sides).sum().backward()
    assert nothing.grad.isfinite().all()


def test_smooth_l1_jumps_as_published() -> None:
    error = torch.tensor([-0.02, 0.049, 0.05, -3.0], dtype=torch.float64)
    assert losses.jumping_smooth_l1(error, 0.05).tolist() == pytest.approx(
        [0.0002, 0.0012005, 0.025, 2.975])


def test_nothing_is_lost_at_the_truth() -> None:
    true = boxes(1)
    for values in losses.disentangled_losses(true, true, 0.05).values():
        assert values.abs().max() < 1e-20
    assert torch.equal(losses.confidence_targets(true, true, 1.0),
                       torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize(('loss', 'field'), losses.DISENTANGLED.items())
def test_each_loss_sees_one_component(loss: str, field: str) -> None:
    true, other = boxes(2), boxes(3)
    predicted = true._replace(**{field: getattr(other, field)})
    got = losses.disentangled_losses(predicted, true, 0.05)
    for name, values in got.items():
        assert (values > 1e-7).all() if name == loss else values.abs().max() < 1e-20
    # The same, one coordinate after the other.
    error = (predicted.corners - true.corners)[0].flatten()
    naive = [0.5 * e * e if abs(e) < 0.05 else abs(e) - 0.025 for e in error.tolist()]
    assert float(got[loss][0]) == pytest.approx(sum(naive) / 24)


def test_confidence_falls_with_the_mean_error() -> None:
    true = boxes(4)
    moved = true._replace(depths=(true.depths + 0.5).requires_grad_())
    got = losses.confidence_targets(moved, true, 2.0)
    expected = [np.exp(-np.abs(a - b).mean() / 2) for a, b in zip(
        moved.corners.detach().numpy(), true.corners.numpy(), strict=True)]
    assert got.tolist() == pytest.approx(expected) and not got.requires_grad


def test_ignored_attributes_do_not_count() -> None:
    logits = torch.tensor([[1., 2, 3], [0, 5, 0], [9, 9, 9]], requires_grad=True)
    got = losses.attribute_loss(logits, torch.tensor([0, 1, 3]), 3)
    assert got.item() == pytest.approx(F.cross_entropy(
        logits[:2], torch.tensor([0, 1])).item())
    got.backward()
    assert not logits.grad[2].any()


def test_unknown_speeds_do_not_count() -> None:
    speeds = torch.tensor([1., 2, 3], requires_grad=True)
    got = losses.speed_loss(speeds, torch.tensor([1.02, float('nan'), 5]),
                            torch.tensor([0.5, 1, 0.25]), 0.05)
    assert got.item() == pytest.approx(0.5 * 0.5 * 0.02**2 / 0.05 + 0.25 * (2 - 0.025), rel=1e-4)
    got.backward()
    assert speeds.grad.isfinite().all() and speeds.grad[1] == 0


def test_no_row_is_no_loss_but_a_gradient() -> None:
    speeds = torch.zeros(0, requires_grad=True)
    logits = torch.zeros(4, 3, requires_grad=True)
    total = losses.speed_loss(speeds, torch.zeros(0), torch.zeros(0), 0.05) + (
        losses.attribute_loss(logits, torch.full((4,), 3), 3))
    assert total.item() == 0
    total.backward()
    assert not logits.grad.any()
