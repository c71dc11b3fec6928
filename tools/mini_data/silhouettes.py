"""Silhouettes of all classes as binary masks.

Drawn with PIL alone: its rasteriser and its resampler use integers or plain C, so the masks
do not depend on the instruction set of the processor.
"""
from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from tools.mini_data.sources import digit_indices, digit_picture

SUPERSAMPLING = 4
"""Mask samples per pixel and axis."""

MAX_DIGIT_TURN = 20
"""Degrees: more would make a 6 and a 9, or a 2 and a 7, hard to tell apart."""

_MARGIN, _ENLARGED = 2, 8

Points = list[tuple[float, float]]


def _regular(corners: int, start: float = 0.0, radius: float = 1.0) -> Points:
    """Corners of a regular polygon around the origin."""
    steps = (start + 2 * math.pi * k / corners for k in range(corners))
    return [(radius * math.cos(step), radius * math.sin(step)) for step in steps]


def _star(inner: float) -> Points:
    """A star of five points; ``inner`` is the radius of its notches."""
    outer_points, inner_points = _regular(5), _regular(5, math.pi / 5, inner)
    return [point for pair in zip(outer_points, inner_points, strict=True) for point in pair]


def _cross(arm: float) -> Points:
    """A plus sign; ``arm`` is half the thickness of its bars."""
    return [(1, -arm), (1, arm), (arm, arm), (arm, 1), (-arm, 1), (-arm, arm),
            (-1, arm), (-1, -arm), (-arm, -arm), (-arm, -1), (arm, -1), (arm, -arm)]


def _outlines(rng: np.random.Generator, name: str) -> list[Points]:
    """Outer outline and, for a ring, its hole; coordinates within about [-1, 1]."""
    if name == 'circle':
        return [_regular(48)]
    if name == 'ring':
        return [_regular(48), _regular(48, radius=rng.uniform(0.45, 0.65))]
    if name == 'square':
        return [_regular(4)]
    if name == 'triangle':
        return [_regular(3)]
    if name == 'star':
        return [_star(rng.uniform(0.38, 0.48))]
    if name == 'cross':
        return [_cross(rng.uniform(0.26, 0.36))]
    raise ValueError(f'name is not valid: got {name!r}, expected a shape of this module')


def _draw_shape(rng: np.random.Generator, name: str, size: float, side: int) -> np.ndarray:
    """Fill the outline of a shape, squeezed along one axis and turned by any angle."""
    turn, squeeze = rng.uniform(0, 2 * math.pi), rng.uniform(0.78, 1.0)
    cos, sin = math.cos(turn), math.sin(turn)
    shift_x, shift_y = rng.uniform(-0.5, 0.5, 2) * SUPERSAMPLING + (side - 1) / 2
    picture = Image.new('L', (side, side))
    pen = ImageDraw.Draw(picture)
    for ink, outline in zip((255, 0), _outlines(rng, name), strict=False):
        scaled = [(x * size / 2, y * squeeze * size / 2) for x, y in outline]
        pen.polygon([(shift_x + cos * x - sin * y, shift_y + sin * x + cos * y)
                     for x, y in scaled], fill=ink)
    return np.asarray(picture) > 127


@cache
def _enlarged_digit(index: int) -> Image.Image:
    """A handwritten digit, upscaled smoothly, with two samples of margin on all sides."""
    small = Image.fromarray(np.pad(digit_picture(index), _MARGIN))
    side = small.width * _ENLARGED
    return small.resize((side, side), Image.Resampling.BICUBIC)


def _draw_digit(rng: np.random.Generator, index: int, size: float, side: int) -> np.ndarray:
    """A handwritten digit, turned and slanted a little, and cut at half ink."""
    turn = math.radians(rng.uniform(-MAX_DIGIT_TURN, MAX_DIGIT_TURN))
    slant, width = rng.uniform(-0.15, 0.15), rng.uniform(0.9, 1.25)
    cos, sin = math.cos(turn), math.sin(turn)
    source = _enlarged_digit(index)
    step = 8 * _ENLARGED / size
    # Rows of the matrix that takes a sample of the result to a sample of the source.
    row_x = (step * (cos + slant * sin) / width, step * (sin - slant * cos) / width)
    row_y = (-step * sin, step * cos)
    middle, centre = side / 2, source.width / 2
    matrix = (row_x[0], row_x[1], centre - middle * (row_x[0] + row_x[1]),
              row_y[0], row_y[1], centre - middle * (row_y[0] + row_y[1]))
    picture = source.transform((side, side), Image.Transform.AFFINE, matrix,
                               Image.Resampling.BILINEAR)
    return np.asarray(picture) > 112


def draw(rng: np.random.Generator, name: str, size: float,
         split: str) -> tuple[np.ndarray, int | None]:
    """Draw one object of a class.

    Args:
        rng: Source of all choices.
        name: Class name, ``digit_N`` or a shape.
        size: Diameter of a shape, or height of a digit, in pixels.
        split: Which handwritten digits may be used.

    Returns:
        A square boolean mask whose side is a multiple of ``SUPERSAMPLING`` (so many samples
        per pixel), and the index of the handwritten digit or None.
    """
    side = (math.ceil(size * 1.5) + 2) * SUPERSAMPLING
    fine_size = size * SUPERSAMPLING
    if not name.startswith('digit_'):
        return _draw_shape(rng, name, fine_size, side), None
    choices = digit_indices(int(name.removeprefix('digit_')), split)
    index = choices[int(rng.integers(len(choices)))]
    return _draw_digit(rng, index, fine_size, side), index
