"""Targets of the perspective head against loops over locations and boxes."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from mmdet3d_custom.models import perspective_targets as targets
from tests.mmdet3d_custom.models import perspective_scene as scene

STRIDES = (8, 16)
RANGES = ((-1, 32), (32, 1e8))
SHAPES = [(6, 10), (3, 5)]


def naive(bboxes: list[list[float]], radius: float) -> list[int]:
    """The box of each location, one location and one box after the other."""
    found = []
    for (height, width), stride, (low, high) in zip(SHAPES, STRIDES, RANGES, strict=True):
        for i in range(height):
            for j in range(width):
                x, y, best, smallest = j * stride, i * stride, -1, float('inf')
                for index, (x1, y1, x2, y2) in enumerate(bboxes):
                    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
                    reach = stride * radius
                    inside = (max(x1, cx - reach) < x < min(x2, cx + reach)
                              and max(y1, cy - reach) < y < min(y2, cy + reach))
                    farthest = max(x - x1, y - y1, x2 - x, y2 - y)
                    area = (x2 - x1) * (y2 - y1)
                    if inside and low < farthest <= high and area < smallest:
                        best, smallest = index, area
                found.append(best)
    return found


def assign(bboxes: list[list[float]], radius: float = 1.5) -> list[int]:
    locations = targets.level_locations(SHAPES, STRIDES, torch.device('cpu'))
    return targets.assign_locations(locations, STRIDES, RANGES, radius,
                                    torch.tensor(bboxes).reshape(-1, 4)).tolist()


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('radius', [0.75, 1.5])
def test_assignment_is_the_loops(seed: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, (60, 30), (6, 2))
    bboxes = np.round(np.c_[low, low + rng.uniform(4, 40, (6, 2))] * 2) / 2
    expected = naive(bboxes.tolist(), radius)
    assert max(expected) > 0
    assert assign(bboxes.astype(np.float32).tolist(), radius) == expected


def test_edges_are_excluded_and_ranges_end_with_their_upper_end() -> None:
    # (16, 16) is a corner of the first box and the center of the second, 32 px from its sides.
    found = assign([[16., 16, 40, 40], [-16., -16, 48, 48]])
    assert found[2 * 10 + 2] == 1 and 0 in found
    assert found[60 + 5 + 1] == -1  # the same place on level 1, which begins above 32
    assert assign([[-17., -16, 48, 48]])[60 + 5 + 1] == 0


def test_smallest_box_wins_and_the_first_of_two_alike() -> None:
    inner, outer = [10., 10, 40, 40], [4., 4, 46, 46]
    assert set(assign([outer, inner])) >= {1}
    at_center = 3 * 10 + 3  # (24, 24)
    assert assign([outer, inner])[at_center] == 1
    assert assign([inner, outer, inner])[at_center] == 0


def test_no_box_is_no_target() -> None:
    assert assign([]) == [-1] * 75


def test_locations_are_multiples_of_the_stride() -> None:
    first, second = targets.level_locations([(2, 3), (1, 2)], (8, 16), torch.device('cpu'))
    assert first.tolist() == [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8]]
    assert second.tolist() == [[0, 0], [16, 0]]


def test_centerness() -> None:
    sides = torch.tensor([[5., 5, 5, 5], [1, 2, 4, 8]])
    assert targets.centerness(sides).tolist() == pytest.approx([1, (1 / 4 * 2 / 8)**0.5])


def test_pictures_with_annotations_take_part() -> None:
    samples = [scene.make_sample(0, (0, 2, 1)), scene.make_sample(1, (3, 0, 0))]
    samples[1].metainfo['cam2img'][0] *= 2
    found = targets.gather_annotations(samples, 3, 3, torch.device('cpu'))
    assert found.pictures.tolist() == [1, 2, 3]
    assert found.picture.tolist() == [0, 0, 1, 2, 2, 2]
    expected = torch.cat([sample.gt_instances_perspective.bboxes for sample in samples])
    assert torch.equal(found.bboxes, expected)
    np.testing.assert_allclose(found.inverse_intrinsics[0], np.linalg.inv(scene.INTRINSICS),
                               rtol=1e-6)
    assert found.inverse_intrinsics.dtype == found.speeds.dtype == torch.float32


def test_without_annotations_the_first_picture_stands_in() -> None:
    samples = [scene.make_sample(0, (0, 0)), scene.make_sample(1, (0, 0))]
    found = targets.gather_annotations(samples, 2, 3, torch.device('cpu'))
    assert found.pictures.tolist() == [0] and not len(found.labels)
    assert found.inverse_intrinsics.shape == (1, 3, 3)


@pytest.mark.parametrize(('name', 'value', 'message'), [
    ('labels', torch.tensor([0, 3]), 'got values from 0 to 3, expected 0 to 2'),
    ('cameras', torch.tensor([-1, 0]), 'got values from -1 to 0, expected 0 to 1'),
    ('quaternions', torch.zeros(2, 3), r'got \(2, 3\), expected a tensor of shape \(2, 4\)'),
])
def test_wrong_annotations_are_refused(name: str, value: torch.Tensor, message: str) -> None:
    sample = scene.make_sample(0, (1, 1))
    sample.gt_instances_perspective[name] = value
    with pytest.raises(ValueError, match=f'perspective.{name} is not valid: {message}'):
        targets.gather_annotations([sample], 2, 3, torch.device('cpu'))


def test_a_missing_field_is_refused() -> None:
    sample = scene.make_sample(0, (1, 1))
    sample.gt_instances_perspective.pop('speeds')
    with pytest.raises(ValueError, match='speeds is not valid: got NoneType'):
        targets.gather_annotations([sample], 2, 3, torch.device('cpu'))
