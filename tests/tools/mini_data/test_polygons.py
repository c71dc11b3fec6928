"""Polygons and run lengths against the masks that they stand for."""
from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as masks

from tools.mini_data.classes import COCO_CLASSES
from tools.mini_data.polygons import (
    polygon_area,
    polygon_box,
    to_pixels,
    to_polygons,
    to_runs,
)
from tools.mini_data.silhouettes import SUPERSAMPLING as S
from tools.mini_data.silhouettes import draw

SQUARE = [2.0, 1.0, 5.0, 1.0, 5.0, 4.0, 2.0, 4.0]
TRIANGLE = [0.0, 0.0, 4.0, 0.0, 0.0, 3.0]


def rectangle(height: int, width: int, rows: slice, cols: slice) -> np.ndarray:
    mask = np.zeros((height * S, width * S), bool)
    mask[rows, cols] = True
    return mask


def raster_box(mask: np.ndarray) -> np.ndarray:
    """Left, upper, right, lower end of the samples of a mask, in pixels."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]) / S


def ends(polygons: list[list[float]]) -> np.ndarray:
    """Left, upper, right, lower end of polygons."""
    left, upper, width, height = polygon_box(polygons)
    return np.array([left, upper, left + width, upper + height])


def fill(polygons: list[list[float]], shape: tuple[int, int]) -> np.ndarray:
    """The samples within polygons."""
    filled = np.zeros(shape, np.uint8)
    for polygon in polygons:
        corners = np.array(polygon).reshape(-1, 1, 2) * S - 0.5
        cv2.fillPoly(filled, [corners.round().astype(np.int32)], 1)
    return filled > 0


@pytest.mark.parametrize(('polygons', 'area', 'box'), [
    ([SQUARE], 9, [2, 1, 3, 3]), ([TRIANGLE], 6, [0, 0, 4, 3]),
    ([SQUARE, TRIANGLE], 15, [0, 0, 5, 4]),
    ([[0.25, 0.25, 0.75, 0.25, 0.75, 0.5, 0.25, 0.5]], 0.125, [0.25, 0.25, 0.5, 0.25])])
def test_area_and_box_by_hand(polygons: list, area: float, box: list[float]) -> None:
    assert polygon_area(polygons) == area
    assert polygon_box(polygons) == box


def test_area_does_not_depend_on_direction_start_or_place() -> None:
    corners = np.array(TRIANGLE).reshape(-1, 2)
    for changed in (corners[::-1], np.roll(corners, 1, axis=0), corners + (100, 7)):
        assert polygon_area([changed.ravel().tolist()]) == 6


# In samples; the ends of the polygon are the middles of the outermost samples.
@pytest.mark.parametrize(('rows', 'cols'), [
    (slice(12, 40), slice(20, 60)), (slice(0, 16), slice(0, 9)), (slice(30, 64), slice(71, 80)),
    (slice(21, 30), slice(33, 75))],
    ids=['aligned', 'upper-left', 'lower-right', 'odd'])
def test_a_rectangle_stays_where_it_is(rows: slice, cols: slice) -> None:
    polygon, = to_polygons(rectangle(16, 20, rows, cols))
    expected = np.array([cols.start + 0.5, rows.start + 0.5, cols.stop - 0.5, rows.stop - 0.5]) / S
    np.testing.assert_allclose(ends([polygon]), expected, atol=0.0051)
    assert polygon_area([polygon]) == pytest.approx(
        np.prod(expected[2:] - expected[:2]), abs=0.02 * sum(expected))


@pytest.mark.parametrize('name', COCO_CLASSES)
def test_polygons_lean_to_no_side(name: str) -> None:
    """Those of the mirrored mask are mirrored."""
    mask, _ = draw(np.random.default_rng(5), name, 50, 'val')
    straight, turned = ends(to_polygons(mask)), ends(to_polygons(mask[::-1, ::-1]))
    size = mask.shape[0] / S
    # Outlines are simplified from another start: a sample more or less.
    np.testing.assert_allclose(size - turned[[2, 3, 0, 1]], straight, atol=0.13)


def test_polygons_lie_within_the_picture() -> None:
    for seed in range(20):
        mask, _ = draw(np.random.default_rng(seed), 'star', 30, 'train')
        part = mask[40:100, 60:140]  # cut off by the border on all sides
        for polygon in to_polygons(part):
            assert min(polygon) >= 0 and max(polygon[0::2]) <= 20 and max(polygon[1::2]) <= 15


def test_pieces_have_polygons_of_their_own() -> None:
    mask = rectangle(16, 20, slice(8, 40), slice(8, 40))
    mask[:, 20:28] = False
    assert len(to_polygons(mask)) == 2
    # Slivers thinner than a pixel and specks of less than two do not.
    mask[50:53, 4:60] = True
    mask[56:62, 4:9] = True
    assert len(to_polygons(mask)) == 2


def test_parts_that_touch_at_a_corner_alone() -> None:
    mask = rectangle(16, 16, slice(8, 28), slice(8, 28))
    mask[28:48, 28:48] = True
    assert polygon_area(to_polygons(mask)) == pytest.approx(2 * 25, rel=0.12)


@pytest.mark.parametrize('holes', [
    [(16, 28, 16, 28)], [(12, 24, 12, 24), (36, 48, 12, 24)], [(12, 24, 12, 24), (12, 24, 40, 52)],
    [(10, 20, 10, 20), (10, 20, 44, 54), (44, 54, 10, 20), (44, 54, 44, 54)]],
    ids=['one', 'stacked', 'beside', 'four'])
def test_holes_are_left_out(holes: list[tuple[int, int, int, int]]) -> None:
    mask = rectangle(16, 16, slice(4, 60), slice(4, 60))
    for upper, lower, left, right in holes:
        mask[upper:lower, left:right] = False
    polygons = to_polygons(mask)
    filled = fill(polygons, mask.shape)
    for upper, lower, left, right in holes:
        assert not filled[upper + 2:lower - 2, left + 2:right - 2].any()
    assert (filled & mask).sum() / mask.sum() > 0.97
    assert polygon_area(polygons) == pytest.approx(mask.sum() / S ** 2, rel=0.06)


def test_holes_of_less_than_two_pixels_are_filled() -> None:
    mask = rectangle(16, 16, slice(8, 56), slice(8, 56))
    whole = to_polygons(mask)
    mask[30:34, 30:34] = False
    assert to_polygons(mask) == whole


@pytest.mark.parametrize('small_first', [False, True])
def test_small_holes_do_not_hide_large_ones(small_first: bool) -> None:
    mask = rectangle(16, 16, slice(4, 60), slice(4, 60))
    mask[24:40, 24:40] = False
    for left in (10, 50):
        mask[(10 if small_first else 50):, left:left + 3][:3] = False
    polygons = to_polygons(mask)
    assert not fill(polygons, mask.shape)[26:38, 26:38].any()
    assert len(polygons) == 2


def random_mask(seed: int, height: int, width: int) -> np.ndarray:
    draw_ = np.random.default_rng(seed)
    return draw_.random((height, width)) < draw_.random()


@pytest.mark.parametrize('mask', [
    *(random_mask(seed, 3 + seed, 11 - seed) for seed in range(8)), np.zeros((4, 5), bool),
    np.ones((4, 5), bool), np.ones((1, 1), bool), np.eye(6, dtype=bool),
    np.arange(12).reshape(3, 4) == 0, np.arange(12).reshape(3, 4) == 11],
    ids=lambda mask: f'{mask.shape[0]}x{mask.shape[1]}-{mask.sum()}')
def test_run_lengths_round_trip(mask: np.ndarray) -> None:
    runs = to_runs(mask)
    assert runs['size'] == list(mask.shape) and sum(runs['counts']) == mask.size
    decoded = masks.decode(masks.frPyObjects(runs, *mask.shape))
    assert np.array_equal(decoded.astype(bool), mask)


def test_run_lengths_by_hand() -> None:
    """Column by column, zeros first."""
    mask = np.array([[0, 1, 1], [0, 1, 0]], bool)
    assert to_runs(mask) == {'counts': [2, 3, 1], 'size': [2, 3]}
    assert to_runs(~mask) == {'counts': [0, 2, 3, 1], 'size': [2, 3]}
    assert all(type(count) is int for count in to_runs(mask)['counts'])  # JSON needs them


def test_half_of_the_samples_make_a_pixel() -> None:
    fine = np.zeros((S, 3 * S), bool)
    for pixel, samples in enumerate((S * S // 2 - 1, S * S // 2, S * S)):
        block = np.zeros(S * S, bool)
        block[:samples] = True
        fine[:, pixel * S:(pixel + 1) * S] = block.reshape(S, S)
    assert to_pixels(fine).tolist() == [[False, True, True]]


def test_a_full_mask_gives_the_whole_picture() -> None:
    polygon, = to_polygons(rectangle(16, 20, slice(0, 64), slice(0, 80)))
    np.testing.assert_allclose(ends([polygon]), np.array([0.5, 0.5, 79.5, 63.5]) / S, atol=0.0051)
