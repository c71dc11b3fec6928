"""Silhouettes: their areas by geometry, their holes, their seeds."""
from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from tools.mini_data import silhouettes
from tools.mini_data.classes import COCO_CLASSES, IMAGENET_CLASSES
from tools.mini_data.silhouettes import SUPERSAMPLING as S
from tools.mini_data.silhouettes import draw
from tools.mini_data.sources import digit_indices

NAMES = sorted({*COCO_CLASSES, *IMAGENET_CLASSES})
SQUEEZE = 0.78, 1.0
# Least and greatest area within the unit circle, before it is squeezed.
AREAS = {
    'circle': (math.pi, math.pi), 'square': (2, 2), 'triangle': (3 * 3 ** 0.5 / 4,) * 2,
    'ring': (math.pi * (1 - 0.65 ** 2), math.pi * (1 - 0.45 ** 2)),
    # Ten triangles between an outer corner, an inner one and the middle.
    'star': tuple(5 * inner * math.sin(math.pi / 5) for inner in (0.38, 0.48)),
    # Two bars less the square that they share.
    'cross': tuple(8 * arm - 4 * arm ** 2 for arm in (0.26, 0.36))}


@pytest.mark.parametrize('name', AREAS)
@pytest.mark.parametrize('size', [40, 90])
def test_area_by_geometry(name: str, size: int) -> None:
    scale = (size / 2) ** 2
    low, high = (squeeze * area * scale
                 for squeeze, area in zip(SQUEEZE, AREAS[name], strict=True))
    areas = [draw(np.random.default_rng(seed), name, size, 'train')[0].sum() / S ** 2
             for seed in range(30)]
    # Edges may add half a sample all around.
    assert min(areas) > 0.97 * low and max(areas) < 1.05 * high
    # And the whole range is used.
    assert min(areas) < low + 0.3 * (high - low) and max(areas) > high - 0.3 * (high - low)


@pytest.mark.parametrize('name', AREAS)
def test_shapes_are_turned_within_their_circle(name: str) -> None:
    seen = np.zeros((62 * S, 62 * S), int)
    for seed in range(40):
        mask, _ = draw(np.random.default_rng(seed), name, 40, 'val')
        seen += mask
        y, x = np.argwhere(mask).T
        distance = np.hypot(y - (len(mask) - 1) / 2, x - (len(mask) - 1) / 2)
        # Half a pixel of shift each way, and the width of a sample; a cross has wide ends.
        reach = 20 * math.hypot(1, 0.36) if name == 'cross' else 20
        assert distance.max() < (reach + 1) * S
    # Every direction has been reached, to two thirds of the radius.
    angles, middle = np.arange(0, 2 * math.pi, 0.2), (len(seen) - 1) / 2
    y, x = (middle + 13.3 * S * np.array([np.sin(angles), np.cos(angles)])).round().astype(int)
    assert seen[y, x].min() > 0


@pytest.mark.parametrize(('name', 'parts', 'holes'), [
    ('circle', 1, 0), ('ring', 1, 1), ('square', 1, 0), ('triangle', 1, 0), ('star', 1, 0),
    ('cross', 1, 0)])
def test_parts_and_holes(name: str, parts: int, holes: int) -> None:
    for seed in range(10):
        mask, _ = draw(np.random.default_rng(seed), name, 30, 'train')
        ink = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
        ground = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)[0] - 1
        assert (ink, ground - 1) == (parts, holes)


@pytest.mark.parametrize('name', NAMES)
def test_masks_depend_on_the_seed_alone(name: str) -> None:
    first, again, other = (draw(np.random.default_rng(seed), name, 30, 'train')
                           for seed in (1, 1, 2))
    assert np.array_equal(first[0], again[0]) and first[1] == again[1]
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(('size', 'pixels'), [(12, 20), (12.1, 21), (90, 137)])
def test_masks_are_whole_pixels_with_room_around(size: float, pixels: int) -> None:
    for name in ('square', 'digit_2'):
        mask, _ = draw(np.random.default_rng(0), name, size, 'train')
        assert mask.shape == (pixels * S, pixels * S) and mask.dtype == bool
        rim = np.ones_like(mask)
        rim[1:-1, 1:-1] = False
        assert not mask[rim].any()


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('digit', [2, 3, 4, 6])
def test_digits_are_samples_of_their_split(split: str, digit: int) -> None:
    allowed, used = digit_indices(digit, split), set()
    for seed in range(25):
        _, index = draw(np.random.default_rng(seed), f'digit_{digit}', 20, split)
        assert index in allowed
        used.add(index)
    assert len(used) > 5


def test_strokes_of_a_digit_are_those_of_the_sample() -> None:
    """Upright, not slanted, as wide as it is high: the enlarged sample, cut at half ink."""
    class Straight:
        def uniform(self, low: float, high: float) -> float:
            return 1.0 if low > 0 else 0.0

    index = digit_indices(4, 'train')[0]
    size, side = 64 * S, 98 * S
    mask = silhouettes._draw_digit(Straight(), index, size, side)
    sample = silhouettes.digit_picture(index)
    begin = (side - size) // 2
    blocks = mask[begin:begin + size, begin:begin + size].reshape(8, size // 8, 8, size // 8)
    share = blocks.mean((1, 3))
    assert share[sample > 230].min() > 0.5 and share[sample < 20].max() < 0.5
    assert np.corrcoef(share.ravel(), sample.ravel())[0, 1] > 0.9


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="got 'hexagon'"):
        draw(np.random.default_rng(0), 'hexagon', 20, 'train')
