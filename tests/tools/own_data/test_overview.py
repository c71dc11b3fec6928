"""The picture of a data set: annotations are where they belong, on pictures of every kind."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.tools.own_data import sets
from tests.tools.own_data.test_survey import pictures
from tools.own_data import overview
from tools.own_data.class_folders import survey_class_folders
from tools.own_data.label_maps import survey_label_maps
from tools.own_data.survey import Split, Survey


def encoded() -> dict:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 10:20] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    return dict(size=rle['size'], counts=rle['counts'].decode())


@pytest.mark.parametrize('mask', [
    [[10, 5, 20, 5, 20, 15, 10, 15]], [10, 5, 20, 5, 20, 15, 10, 15], encoded(),
    dict(size=[20, 30], counts=[205, *[10, 10] * 9, 10, 205])], ids=[
        'polygons', 'flat polygon', 'compressed', 'run lengths'])
def test_masks_of_every_form_are_read(mask: object) -> None:
    found = overview._mask(mask, (30, 20))
    assert found.shape == (20, 30) and found.sum() == 100 and found[5:15, 10:20].all()


def test_what_is_no_mask_draws_nothing() -> None:
    assert not overview._mask({'counts': 'x'}, (30, 20)).any()


def test_pictures_of_every_kind_are_drawn(tmp_path: Path) -> None:
    files = pictures(tmp_path)
    entry = dict(bbox=[20, 15, 30, 30], segmentation=None)  # beyond the picture
    split = Split([], {}, {}, shown=[(path, [('a', entry)]) for path in files.values()])
    overview.write_overview(Survey(tmp_path, ['a'], 'objects', {'train': split}),
                            tmp_path / 'sheet.png')
    sheet = np.asarray(Image.open(tmp_path / 'sheet.png').convert('RGB'))
    colour = np.array(overview.colour_of(0))
    height, width = overview.CELL[1] + 24, overview.CELL[0] + 8
    for number in range(len(files)):
        row, column = divmod(number, 4)
        cell = sheet[row * height:(row + 1) * height, column * width:(column + 1) * width]
        assert (np.abs(cell.astype(int) - colour).max(-1) < 8).any(), list(files)[number]


def test_pictures_turned_by_exif_stand_upright(tmp_path: Path) -> None:
    path = pictures(tmp_path)['RGB turned by EXIF']
    survey = Survey(tmp_path, ['a'], 'objects', {})
    drawn = overview._draw(survey, path, [])
    assert drawn.height > drawn.width


@pytest.mark.parametrize('make', ['maps', 'folders'])
def test_label_maps_and_classes_are_drawn(make: str, tmp_path: Path) -> None:
    look, write = {'maps': (survey_label_maps, sets.write_label_maps),
                   'folders': (survey_class_folders, sets.write_class_folders)}[make]
    overview.write_overview(look(write(tmp_path / 'd'), tmp_path / 'x.py'), tmp_path / 's.png')
    assert Image.open(tmp_path / 's.png').width == 4 * (overview.CELL[0] + 8)


def test_neighbours_have_other_colours() -> None:
    assert len({overview.colour_of(label) for label in range(40)}) == 40
