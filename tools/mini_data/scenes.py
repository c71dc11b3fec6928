"""Scenes: textured objects that cover one another on a crop of a photograph.

Colours and textures are drawn without looking at the class, so that only form tells it.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from tools.mini_data.silhouettes import SUPERSAMPLING, draw
from tools.mini_data.sources import load_photo, photo_names

MIN_VISIBLE = 0.8
"""Least share of an object that others and the border of the picture leave visible."""

MIN_CONTRAST = 120
"""Least distance in RGB between an object's colours and the mean of what it covers."""

_TRIES = 30


@dataclass
class Item:
    """One object, or one crowd of objects of a class."""

    name: str
    digits: list[int] = field(default_factory=list)
    crowd: bool = False
    area: int = 0


@dataclass
class Scene:
    """A picture and what it shows.

    ``image`` is (H, W, 3) uint8; ``top`` is (S*H, S*W) uint8 with S mask samples per pixel,
    the number (from 1) of the item that is seen there or 0; ``crop`` is left, top, right,
    bottom in pixels of the photograph.
    """

    image: np.ndarray
    top: np.ndarray
    photo: str
    crop: tuple[int, int, int, int]
    flipped: bool
    items: list[Item] = field(default_factory=list)

    def provenance(self) -> dict:
        """Where the picture comes from, for the provenance file."""
        return {'photo': self.photo, 'crop': list(self.crop), 'flipped': self.flipped,
                'digits': sorted(index for item in self.items for index in item.digits)}


def new_scene(rng: np.random.Generator, size: tuple[int, int], split: str,
              depth: float = 1.0) -> Scene:
    """An empty scene: a random crop of a photograph of the split.

    Args:
        rng: Source of all choices.
        size: Width and height in pixels.
        split: Which photographs may be used.
        depth: Contrast of the photograph within the crop; less is flatter.
    """
    width, height = size
    names = photo_names(split)
    name = names[int(rng.integers(len(names)))]
    photo = load_photo(name)
    largest = min(photo.width / width, photo.height / height)
    zoom = rng.uniform(min(0.8, largest), min(2.4, largest))
    crop_width, crop_height = int(width * zoom), int(height * zoom)
    left = int(rng.integers(photo.width - crop_width + 1))
    upper = int(rng.integers(photo.height - crop_height + 1))
    crop = (left, upper, left + crop_width, upper + crop_height)
    pixels = photo.resize(size, Image.Resampling.BILINEAR, box=crop)
    flipped = bool(rng.integers(2))
    image = np.asarray(pixels, dtype=np.float64)[:, ::-1 if flipped else 1]
    image = (image - image.mean((0, 1))) * depth + image.mean((0, 1))
    image = image * rng.uniform(0.7, 1.1) * rng.uniform(0.88, 1.12, 3) + rng.uniform(-15, 25)
    fine = (height * SUPERSAMPLING, width * SUPERSAMPLING)
    return Scene(np.clip(image, 0, 255).round().astype(np.uint8),
                 np.zeros(fine, np.uint8), name, crop, flipped)


def _pattern(rng: np.random.Generator, side: int) -> np.ndarray:
    """A random texture, (side, side) float in [0, 1]."""
    # Plain ones as often as all other textures together.
    kind = max(int(rng.integers(-4, 6)), 0)
    if kind == 0:
        return np.zeros((side, side))
    y, x = np.mgrid[:side, :side].astype(np.float64)
    along = rng.uniform(-1, 1, 2)
    along /= max(np.abs(along).max(), 1e-6)
    across = np.array([-along[1], along[0]])
    period = rng.uniform(4, 10)
    u = (along[0] * x + along[1] * y) / period
    v = (across[0] * x + across[1] * y) / period
    if kind == 1:
        return np.abs(u % 2 - 1)
    if kind == 2:
        return ((np.floor(u) + np.floor(v)) % 2).astype(np.float64)
    if kind == 3:
        return (((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2) < 0.09).astype(np.float64)
    if kind == 4:
        ramp = along[0] * x + along[1] * y
        return (ramp - ramp.min()) / max(ramp.max() - ramp.min(), 1e-6)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) / 255


def _colours(rng: np.random.Generator, behind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two colours that differ from each other and from the mean colour behind the object."""
    for least in (MIN_CONTRAST, MIN_CONTRAST / 2, 0):
        for _ in range(_TRIES):
            first, second = rng.uniform(0, 255, (2, 3))
            gaps = [np.sqrt(((a - b) ** 2).sum())
                    for a, b in ((first, behind), (second, behind), (first, second))]
            if gaps[0] >= least and gaps[1] >= least and 20 <= gaps[2] <= 90:
                return first, second
    return first, second


def _hides_too_much(scene: Scene, lost: np.ndarray, own: int) -> bool:
    """Whether some item but ``own`` would be seen too little; ``lost`` counts samples by item."""
    for number in np.flatnonzero(lost):
        if number in (0, own):
            continue
        seen = int(np.count_nonzero(scene.top == number)) - int(lost[number])
        if seen < MIN_VISIBLE * scene.items[number - 1].area:
            return True
    return False


def _paint(rng: np.random.Generator, scene: Scene, mask: np.ndarray, left: int,
           upper: int) -> None:
    """Blend a textured object into the picture; ``left``, ``upper`` in pixels."""
    side = mask.shape[0] // SUPERSAMPLING
    # 240 is a multiple of the 16 samples of a pixel: the integer mean is exact.
    cover = np.asarray(Image.fromarray(mask * np.uint8(240)).reduce(SUPERSAMPLING)) / 240
    height, width = scene.image.shape[:2]
    rows = slice(max(upper, 0), min(upper + side, height))
    cols = slice(max(left, 0), min(left + side, width))
    inner = (slice(rows.start - upper, rows.stop - upper),
             slice(cols.start - left, cols.stop - left))
    alpha = cover[inner][..., None]
    old = scene.image[rows, cols].astype(np.float64)
    behind = (old * alpha).sum((0, 1)) / max(alpha.sum(), 1e-6)
    first, second = _colours(rng, behind)
    blend = _pattern(rng, side)[inner][..., None]
    ink = first * (1 - blend) + second * blend
    mixed = old * (1 - alpha) + ink * alpha
    scene.image[rows, cols] = np.clip(mixed, 0, 255).round().astype(np.uint8)


def _stamp(rng: np.random.Generator, scene: Scene, item: Item, number: int, mask: np.ndarray,
           middle: Sequence[float], least: float) -> bool:
    """Put one object around ``middle`` (x, y in pixels) unless it would not fit."""
    side = mask.shape[0] // SUPERSAMPLING
    left, upper = round(middle[0] - side / 2), round(middle[1] - side / 2)
    fine_height, fine_width = scene.top.shape
    y, x = upper * SUPERSAMPLING, left * SUPERSAMPLING
    rows = slice(max(y, 0), min(y + mask.shape[0], fine_height))
    cols = slice(max(x, 0), min(x + mask.shape[1], fine_width))
    part = mask[rows.start - y:rows.stop - y, cols.start - x:cols.stop - x]
    whole = int(np.count_nonzero(mask))
    if np.count_nonzero(part) < max(least * whole, 1):
        return False
    if _hides_too_much(scene, np.bincount(scene.top[rows, cols][part]), number):
        return False
    _paint(rng, scene, mask, left, upper)
    scene.top[rows, cols][part] = number
    item.area += whole
    return True


def add_object(rng: np.random.Generator, scene: Scene, name: str, size: float, split: str,
               least: float = 0.75) -> bool:
    """Add one object at a random place; False where no place was found.

    Args:
        rng: Source of all choices.
        scene: The scene to draw into.
        name: Class name.
        size: See ``silhouettes.draw``, in pixels.
        split: Which handwritten digits may be used.
        least: Least share of the object that must lie within the picture.
    """
    height, width = scene.image.shape[:2]
    mask, digit = draw(rng, name, size, split)
    item = Item(name, [] if digit is None else [digit])
    margin = min(size * 0.4, width / 2, height / 2)
    for _ in range(_TRIES):
        middle = (rng.uniform(margin, width - margin), rng.uniform(margin, height - margin))
        if _stamp(rng, scene, item, len(scene.items) + 1, mask, middle, least):
            scene.items.append(item)
            return True
    return False


def add_crowd(rng: np.random.Generator, scene: Scene, name: str, split: str) -> bool:
    """Add a heap of small objects of one class as a single crowd item."""
    height, width = scene.image.shape[:2]
    middle = np.array([rng.uniform(30, width - 30), rng.uniform(25, height - 25)])
    item, number = Item(name, crowd=True), len(scene.items) + 1
    scene.items.append(item)
    for _ in range(int(rng.integers(7, 13))):
        mask, digit = draw(rng, name, rng.uniform(12, 18), split)
        spot = middle + rng.uniform(-22, 22, 2)
        if _stamp(rng, scene, item, number, mask, spot, 0.75) and digit is not None:
            item.digits.append(digit)
    # Heaped objects hide one another: what counts as whole is what the heap shows.
    item.area = int(np.count_nonzero(scene.top == number))
    if item.area == 0:
        scene.items.pop()
    return item.area > 0


def finish(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """The picture with a little sensor noise, (H, W, 3) uint8."""
    noise = rng.integers(-6, 7, scene.image.shape)
    return np.clip(scene.image + noise, 0, 255).astype(np.uint8)


def save_jpeg(image: np.ndarray, path: str) -> None:
    """Write a picture as JPEG, the same bytes every time."""
    Image.fromarray(image).save(path, format='JPEG', quality=92)
