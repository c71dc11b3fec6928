"""Contact sheets: their sizes, and that they show the pictures where they should."""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tools.mini_data.conftest import Written
from tools.mini_data import overview
from tools.mini_data.classes import ADE_CLASSES, IMAGENET_CLASSES, PALETTE


def sheet(folder: Path, name: str) -> np.ndarray:
    overview.write_overview(folder, name)
    with Image.open(folder / 'overview.png') as picture:
        assert picture.mode == 'RGB'
        return np.asarray(picture)


def sizes(paths: list[Path]) -> list[tuple[int, int]]:
    found = []
    for path in paths:
        with Image.open(path) as picture:
            found.append(picture.size)
    return found


def shown(folder: Path, name: str) -> list[list[Path]]:
    """The pictures of every row: at most two rows of six of train, then of val."""
    rows = []
    for split in ('train', 'val'):
        if name == 'coco':
            paths = sorted((folder / f'{split}2017').iterdir())[:12]
        elif name == 'ade':
            paths = sorted((folder / 'images' / f'{split[:5]}ing'.replace('valing', 'validation'))
                           .iterdir())[:12]
        else:
            own = [sorted((folder / split / name).iterdir()) for name in IMAGENET_CLASSES]
            paths = [own[i % 8][i // 8 % len(own[i % 8])] for i in range(12)]
        rows += [paths[first:first + 6] for first in range(0, len(paths), 6)]
    return rows


@pytest.mark.parametrize(('name', 'factor', 'stacked'), [
    ('coco', 2, 1), ('imagenet', 3, 1), ('ade', 2, 2)])
def test_size_of_the_sheet(written: Callable[[str], Written], name: str, factor: int,
                           stacked: int) -> None:
    folder = written(name).folder
    got = sheet(folder, name)
    rows = [sizes(paths) for paths in shown(folder, name)]
    width = 6 * (factor * max(w for row in rows for w, _ in row) + 6)
    height = sum(factor * stacked * max(h for _, h in row) + 20 for row in rows)
    assert got.shape == (height, width, 3)


def test_rows_of_train_stand_above_those_of_val(written: Callable[[str], Written]) -> None:
    folder = written('imagenet').folder
    got, upper = sheet(folder, 'imagenet'), 16
    rows = shown(folder, 'imagenet')
    width = got.shape[1] // 6
    for paths in rows:
        for column, path in enumerate(paths):
            with Image.open(path) as picture:
                w, h = picture.width * 3, picture.height * 3
                picture = np.asarray(picture.resize((w, h), Image.Resampling.BICUBIC), float)
            part = got[upper:upper + h, column * width:column * width + w]
            # Below the caption.
            assert np.array_equal(part[20:], picture[20:])
        upper += max(h for _, h in sizes(paths)) * 3 + 20


def test_label_maps_stand_below_their_pictures_in_the_colours_of_the_configs(
        written: Callable[[str], Written]) -> None:
    folder = written('ade').folder
    got = sheet(folder, 'ade')
    path = shown(folder, 'ade')[0][0]
    with Image.open(folder / 'annotations' / 'training' / f'{path.stem}.png') as picture:
        labels = np.asarray(picture.resize((picture.width * 2, picture.height * 2),
                                           Image.Resampling.NEAREST))
    height, width = labels.shape
    below = got[16 + height:16 + 2 * height, :width]
    colours = np.array([(0, 0, 0), *PALETTE[:len(ADE_CLASSES)]])
    same = (below == colours[labels]).all(-1)
    # The legend is in the upper left.
    legend = 13 * len(np.unique(labels))
    assert same[legend + 4:].all() and same[:, 80:].all() and not same.all()


def test_boxes_of_crowds_are_drawn(written: Callable[[str], Written], tmp_path: Path) -> None:
    folder = written('coco').folder
    content = json.loads((folder / 'annotations' / 'instances_train2017.json').read_text('utf-8'))
    crowd = next(entry for entry in content['annotations'] if entry['iscrowd'])
    number = [image['id'] for image in content['images']].index(crowd['image_id'])
    assert number < 12
    picture = overview._coco_pictures(folder, 'train', 12)[number]
    with Image.open(folder / 'train2017' / content['images'][number]['file_name']) as plain:
        plain = np.asarray(plain.resize(picture.size, Image.Resampling.BICUBIC))
    left, top, width, height = (2 * value for value in crowd['bbox'])
    corners = [(y, x) for y in (top, top + height) for x in (left, left + width)
               if y < picture.height and x < picture.width]
    changed = (np.asarray(picture) != plain).any(-1)
    assert corners and all(changed[corner] for corner in corners[1:])


def test_sets_of_few_pictures_have_few_rows(written: Callable[[str], Written],
                                            tmp_path: Path) -> None:
    folder = tmp_path / 'ade'
    shutil.copytree(written('ade').folder, folder)
    for path in sorted((folder / 'images' / 'training').iterdir())[1:]:
        path.unlink()
    got = sheet(folder, 'ade')
    (train,), (val,) = ([size] for size in sizes([paths[0] for paths in shown(folder, 'ade')]))
    assert got.shape[0] == 4 * (train[1] + val[1]) + 2 * 20
    assert got.shape[1] == 6 * (2 * max(train[0], val[0]) + 6)
    # Where there is no picture the sheet is white.
    assert (got[:, got.shape[1] // 6:] == 255).all()


def captioned(size: tuple[int, int], spot: tuple[int, int], text: str) -> np.ndarray:
    """Which pixels of a grey picture a caption changes."""
    picture = Image.new('RGB', size, (90, 90, 90))
    overview._caption(picture, spot, text, (255, 0, 0))
    return (np.asarray(picture) != 90).any(-1)


@pytest.mark.parametrize('spot', [(-30, -30), (95, 50), (50, 0), (99, 59)])
@pytest.mark.parametrize('text', ['star', 'digit_2', 'crowd of circle'])
def test_captions_stay_within_the_picture(spot: tuple[int, int], text: str) -> None:
    whole = captioned((400, 400), (100, 100), text)
    # Widths are guessed: a letter may lose its last pixels.
    assert captioned((100, 60), spot, text).sum() >= 0.9 * whole.sum() > 100
