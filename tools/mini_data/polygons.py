"""Masks as COCO segmentations: polygons for objects, run lengths for crowds."""
from __future__ import annotations

import cv2
import numpy as np

from tools.mini_data.silhouettes import SUPERSAMPLING

_PIXEL = np.ones((SUPERSAMPLING, SUPERSAMPLING), np.uint8)

_LEAST_PART = 2 * SUPERSAMPLING ** 2
"""Visible parts and holes of fewer samples (two pixels) are dropped, or filled."""


def _opened(mask: np.ndarray) -> np.ndarray:
    """What a pixel covers that moves, in steps of a sample, within the mask."""
    eroded = cv2.erode(mask.astype(np.uint8), _PIXEL, anchor=(0, 0))
    # The opposite corner: a kernel of even side has no middle, and cv2.MORPH_OPEN, which takes
    # one anchor for both steps, shifts the mask by a sample.
    last = SUPERSAMPLING - 1
    return cv2.dilate(eroded, _PIXEL, anchor=(last, last)) > 0


def _split_at(mask: np.ndarray, column: int) -> list[np.ndarray]:
    """Both sides of a column; both keep the column, so that no gap opens between them."""
    left, right = mask.copy(), mask.copy()
    left[:, column + 1:] = False
    right[:, :column] = False
    return [left, right]


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines (n, 2) of x, y that cover the mask; a part with a hole is cut in two there."""
    contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP,
                                      cv2.CHAIN_APPROX_NONE)
    parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
    outlines: list[np.ndarray] = []
    for contour, (_, _, child, parent) in zip(contours, tree[0] if len(contours) else [],
                                              strict=True):
        if parent >= 0 or cv2.contourArea(contour) < _LEAST_PART:
            continue
        hole = None
        while child >= 0 and hole is None:
            if cv2.contourArea(contours[child]) >= _LEAST_PART:
                hole = contours[child]
            child = tree[0][child][0]
        if hole is None:
            outlines.append(cv2.approxPolyDP(contour, 1.0, closed=True)[:, 0])
            continue
        own = parts == parts[contour[0, 0, 1], contour[0, 0, 0]]
        x, _, width, _ = cv2.boundingRect(hole)
        for side in _split_at(own, x + width // 2):
            outlines.extend(_outlines(side))
    return [outline for outline in outlines if len(outline) >= 3]


def to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Polygons ``[x, y, x, y, ...]`` in pixels of a mask with S samples per pixel.

    An object that others cut into pieces has several polygons; so has one with a hole,
    because COCO polygons have none.
    """
    # Slivers thinner than a pixel that an occluder leaves would widen the box for nothing.
    mask = _opened(mask)
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return []
    upper, left = rows[0], cols[0]
    outlines = _outlines(mask[upper:rows[-1] + 1, left:cols[-1] + 1])
    # A contour runs through the middles of its samples.
    return [((outline + (left + 0.5, upper + 0.5)) / SUPERSAMPLING).round(2).ravel().tolist()
            for outline in outlines]


def polygon_area(polygons: list[list[float]]) -> float:
    """Area in square pixels."""
    total = 0.0
    for polygon in polygons:
        x, y = np.array(polygon[0::2]), np.array(polygon[1::2])
        total += abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2
    return round(total, 4)


def polygon_box(polygons: list[list[float]]) -> list[float]:
    """Left, top, width, height around all polygons, in pixels."""
    x = [value for polygon in polygons for value in polygon[0::2]]
    y = [value for polygon in polygons for value in polygon[1::2]]
    return [min(x), min(y), round(max(x) - min(x), 2), round(max(y) - min(y), 2)]


def to_runs(mask: np.ndarray) -> dict:
    """Uncompressed run lengths of a pixel mask, column by column, as COCO writes crowds."""
    flat = np.asarray(mask, dtype=bool).ravel(order='F')
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff([0, *changes, len(flat)]).tolist()
    return {'counts': [0, *counts] if flat[0] else counts, 'size': list(mask.shape)}


def to_pixels(fine: np.ndarray) -> np.ndarray:
    """The pixels at least half of whose samples are set."""
    height, width = (side // SUPERSAMPLING for side in fine.shape)
    blocks = fine.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING)
    return blocks.mean((1, 3)) >= 0.5
