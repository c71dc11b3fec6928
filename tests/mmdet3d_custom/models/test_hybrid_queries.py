"""Hybrid object queries: suppression against polygons, references by hand, padding, gradients."""
from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmdet3d_custom.models import hybrid_queries as module
from mmdet3d_custom.models.hybrid_queries import HybridQueries

RANGE = (-50.0, -20.0, -5.0, 50.0, 20.0, 3.0)


def build(**changes: object) -> HybridQueries:
    torch.manual_seed(0)
    return HybridQueries(**(dict(embed_dims=16, pc_range=RANGE, num_queries=6) | changes))


def proposals(rows: list[list[float]], scores: list[float]) -> InstanceData:
    """Boxes by gravity center, length, width, height and yaw."""
    from mmdet3d.structures import LiDARInstance3DBoxes
    tensor = torch.tensor(rows, dtype=torch.float32).reshape(-1, 7)
    boxes = LiDARInstance3DBoxes(torch.cat([tensor, torch.zeros(len(tensor), 2)], 1), box_dim=9,
                                 origin=(0.5, 0.5, 0.5))
    return InstanceData(bboxes_3d=boxes, scores_3d=torch.tensor(scores))


def rectangle(row: np.ndarray) -> np.ndarray:
    """Corners (4, 2) on the ground."""
    x, y, _, length, width, _, yaw = row
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    return (signs * (length, width)) @ turn.T + (x, y)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """IoU on the ground, by OpenCV's intersection of convex polygons."""
    area, _ = cv2.intersectConvexConvex(*(rectangle(row).astype(np.float32)
                                          for row in (first, second)))
    return area / (first[3] * first[4] + second[3] * second[4] - area)


@pytest.mark.parametrize('seed', range(3))
def test_suppression_is_the_loop_over_polygons(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.c_[rng.uniform(-8, 8, (40, 3)), rng.uniform((3, 1, 1), (6, 2, 2), (40, 3)),
                 rng.uniform(-4, 4, 40)]
    scores = rng.permutation(40) / 40
    kept: list[int] = []
    for index in np.argsort(-scores):
        if all(overlap(rows[index], rows[other]) <= 0.3 for other in kept):
            kept.append(int(index))
    got = module.suppress_on_ground(torch.tensor(rows).float(), torch.tensor(scores).float(), 0.3)
    assert got.tolist() == kept and 5 < len(kept) < 40


def test_references_are_the_centers_best_first() -> None:
    found = proposals([[0, 0, -1, 4, 2, 2, 0], [25, -10, 1, 4, 2, 2, 1],
                       [25.5, -10, 1, 4, 2, 2, 1], [-50.1, 0, 0, 4, 2, 2, 0],
                       [10, 5, 9, 4, 2, 2, 0]], [0.5, 0.9, 0.8, 0.95, 0.6])
    got = build()([found], [{}])
    expected = [[0.75, 0.25, 0.75], [0.6, 0.625, 1.0], [0.5, 0.5, 0.5]]
    torch.testing.assert_close(got.reference_points[0, :3], torch.tensor(expected))
    assert got.valid.tolist() == [[True] * 3 + [False] * 3]
    assert got.reference_points.shape == (1, 6, 3)
    assert got.query_pos.shape == got.content.shape == (1, 6, 16)


def test_the_augmentation_moves_references() -> None:
    angle = np.deg2rad(20)
    bda = np.diag([-1, 1, 1]) @ (1.05 * np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]))
    center = np.array([10, 5, 1.0])
    got = build()([proposals([[*center, 4, 2, 2, 0.3]], [0.9])], [dict(bda=bda)])
    expected = (bda @ center - RANGE[:3]) / (np.array(RANGE[3:]) - RANGE[:3])
    np.testing.assert_allclose(got.reference_points[0, 0], expected, rtol=1e-5)
    # What the augmentation moves out of the range is no query.
    moved = build()([proposals([[48, 0, 0, 4, 2, 2, 0]], [0.9])], [dict(bda=np.eye(3) * 1.05)])
    assert not moved.valid.any()


def test_the_best_fill_the_queries_and_samples_are_apart() -> None:
    rows = [[6 * index - 40, 0, 0, 4, 2, 2, 0] for index in range(12)]
    scores = (torch.arange(12) / 12).tolist()
    many, none = proposals(rows, scores), proposals([], [])
    layer = build()
    got = layer([none, many], [{}, {}])
    assert got.valid.tolist() == [[False] * 6, [True] * 6]
    expected = torch.tensor([(rows[index][0] + 50) / 100 for index in range(11, 5, -1)])
    torch.testing.assert_close(got.reference_points[1, :, 0], expected)
    alone = layer([many], [{}])
    for one, other in zip(alone, got, strict=True):
        torch.testing.assert_close(one[0], other[1])


def test_weak_and_broken_proposals_are_left_out() -> None:
    found = proposals([[0, 0, 0, 4, 2, 2, 0], [float('nan'), 0, 0, 4, 2, 2, 0],
                       [20, 0, 0, 4, 2, 2, 0]], [0.05, 0.9, 0.3])
    got = build(score_threshold=0.1)([found], [{}])
    assert got.valid.sum() == 1 and float(got.reference_points[0, 0, 0]) == pytest.approx(0.7)


def test_encoding_is_written_out() -> None:
    point = torch.tensor([0.25, 0.5, 0.9])
    waves = [2 * np.pi / 10000**(i / 4) for i in range(4)]
    expected = [function(float(value) * wave) for value in point for function in (np.sin, np.cos)
                for wave in waves]
    np.testing.assert_allclose(module.sine_encoding(point, 8), expected, atol=1e-6)


def test_own_parameters_learn_and_proposals_do_not() -> None:
    layer, found = build(), proposals([[1, 2, 0, 4, 2, 2, 0]], [0.9])
    found.scores_3d.requires_grad_()
    got = layer([found], [{}])
    assert not got.reference_points.requires_grad
    (got.query_pos.sum() + got.content.square().sum()).backward()
    assert all(parameter.grad.any() for parameter in layer.parameters())
    assert found.scores_3d.grad is None


def test_bfloat16_autocast_keeps_references() -> None:
    layer, found = build(), proposals([[1.37, 2.11, 0, 4, 2, 2, 0]], [0.9])
    expected = layer([found], [{}]).reference_points
    with torch.autocast('cpu', torch.bfloat16):
        got = layer([found], [{}])
    assert torch.equal(got.reference_points, expected) and got.query_pos.isfinite().all()


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(embed_dims=6), 'embed_dims is not valid: got 6'),
    (dict(pc_range=(0, 0, 0, 1, -1, 1)), 'pc_range is not valid'),
    (dict(num_queries=0), 'num_queries is not valid: got 0'),
])
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_every_sample_needs_its_proposals() -> None:
    with pytest.raises(ValueError, match='got those of 1 samples, expected 2'):
        build()([proposals([], [])], [{}, {}])
