"""Real input that the installed packages ship: photographs and handwritten digits.

Train and val share none of it: each photograph belongs to one split, and of every
handwritten digit the first samples belong to train and the last fifth to val (the
samples are ordered by writer, so most writers are new in val). The assignment is the
same in all mini sets: what one set holds for val, no other trains on.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from mmdcn.errors import UserError

VAL_FRACTION = 0.2
"""Share of the samples of each digit that is kept for val."""


@dataclass(frozen=True)
class Photo:
    """A photograph: file inside an installed package, the split it belongs to, its licence."""

    name: str
    package: str
    file: str
    split: str
    license: str


CC0 = 'CC0 or public domain'
CC_BY = 'CC BY 2.0'
LICENSES = {
    CC0: 'https://creativecommons.org/publicdomain/zero/1.0/',
    CC_BY: 'https://creativecommons.org/licenses/by/2.0/',
}

PHOTOS = {photo.name: photo for photo in (
    Photo('astronaut', 'skimage', 'data/astronaut.png', 'train', CC0),
    Photo('brick', 'skimage', 'data/brick.png', 'train', CC0),
    Photo('chelsea', 'skimage', 'data/chelsea.png', 'train', CC0),
    Photo('coffee', 'skimage', 'data/coffee.png', 'train', CC0),
    Photo('grass', 'skimage', 'data/grass.png', 'train', CC0),
    Photo('gravel', 'skimage', 'data/gravel.png', 'train', CC0),
    Photo('immunohistochemistry', 'skimage', 'data/ihc.png', 'train', CC0),
    Photo('rocket', 'skimage', 'data/rocket.jpg', 'train', CC0),
    Photo('camera', 'skimage', 'data/camera.png', 'val', CC0),
    Photo('china', 'sklearn', 'datasets/images/china.jpg', 'val', CC_BY),
    Photo('flower', 'sklearn', 'datasets/images/flower.jpg', 'val', CC_BY),
)}

_DISTRIBUTIONS = {'skimage': 'scikit-image', 'sklearn': 'scikit-learn'}


def photo_names(split: str) -> tuple[str, ...]:
    """Names of the photographs of a split, sorted."""
    return tuple(sorted(name for name, photo in PHOTOS.items() if photo.split == split))


@cache
def load_photo(name: str) -> Image.Image:
    """The photograph as an RGB picture; UserError where its package lacks it."""
    photo = PHOTOS[name]
    distribution = _DISTRIBUTIONS[photo.package]
    spec = find_spec(photo.package)
    if spec is None or spec.origin is None:
        raise UserError(distribution, 'it is not installed',
                        remedy=f'run: pip install {distribution}')
    path = Path(spec.origin).parent / photo.file
    if not path.is_file():
        raise UserError(distribution, f'it lacks {photo.file}',
                        remedy=f'run: pip install --force-reinstall {distribution}')
    return Image.open(path).convert('RGB')


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Samples (1797, 8, 8) uint8 in 0..255 and their labels (1797,)."""
    if find_spec('sklearn') is None:
        raise UserError('scikit-learn', 'it is not installed',
                        remedy='run: pip install scikit-learn')
    from sklearn.datasets import load_digits
    data = load_digits()
    # The stored ink runs from 0 to 16.
    return np.minimum(data.images * 16, 255).astype(np.uint8), data.target


@cache
def digit_indices(digit: int, split: str) -> tuple[int, ...]:
    """Sample indices of one digit (0..9) that belong to a split, ascending."""
    indices = np.flatnonzero(_digits()[1] == digit).tolist()
    first_val = len(indices) - round(len(indices) * VAL_FRACTION)
    return tuple(indices[:first_val] if split == 'train' else indices[first_val:])


def digit_picture(index: int) -> np.ndarray:
    """One handwritten digit, (8, 8) uint8, ink is bright."""
    return _digits()[0][index]
