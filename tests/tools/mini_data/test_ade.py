"""The mini ADE20K set: label values, void borders, counts, and what a picture depends on."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tools.mini_data.conftest import Written
from tools.mini_data import ade
from tools.mini_data.classes import ADE_CLASSES
from tools.mini_data.scenes import Item, Scene
from tools.mini_data.silhouettes import SUPERSAMPLING as S


@pytest.fixture
def made(written: Callable[[str], Written]) -> Written:
    return written('ade')


def label(name: str) -> int:
    """The value on disk."""
    return 1 + ADE_CLASSES.index(name)


def test_labels_by_hand() -> None:
    top = np.zeros((2 * S, 4 * S), np.uint8)
    top[:S, S:2 * S] = 1           # a whole pixel of the star
    top[:S, 2 * S:3 * S] = 2       # of the ring
    top[0, 3 * S] = 2              # one sample in the ground
    top[S:, :S] = 1
    top[2 * S - 1, S - 1] = 2      # all but one
    top[S:, S:2 * S] = 3           # another star
    scene = Scene(np.zeros((2, 4, 3), np.uint8), top, 'coffee', (0, 0, 4, 2), False,
                  [Item('star'), Item('ring'), Item('star')])
    labels = ade.label_map(scene)
    star, ring = label('star'), label('ring')
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[1, star, ring, 0], [0, star, 1, 1]]


def test_two_objects_of_a_class_are_apart() -> None:
    """A pixel that both share belongs to no item alone."""
    top = np.ones((S, S), np.uint8)
    top[:, S // 2:] = 2
    scene = Scene(np.zeros((1, 1, 3), np.uint8), top, 'coffee', (0, 0, 1, 1), False,
                  [Item('star'), Item('star')])
    assert ade.label_map(scene).tolist() == [[0]]


@pytest.mark.parametrize(('split', 'folder', 'count'), [('train', 'training', 15),
                                                        ('val', 'validation', 1)])
def test_every_picture_has_a_label_map(made: Written, split: str, folder: str, count: int) -> None:
    pictures = sorted((made.folder / 'images' / folder).iterdir())
    maps = sorted((made.folder / 'annotations' / folder).iterdir())
    assert [path.stem for path in pictures] == [path.stem for path in maps]
    assert [path.name for path in pictures] == [
        f'ADE_{split}_{number + 1:08d}.jpg' for number in range(count)]
    for picture, labels in zip(pictures, maps, strict=True):
        with Image.open(picture) as image, Image.open(labels) as values:
            assert image.size == values.size and values.mode == 'L' and values.format == 'PNG'
            found = set(np.unique(values).tolist())
        assert found <= {*range(len(ADE_CLASSES) + 1)} and {0, 1} < found


def test_records_hold_the_pixels_of_the_written_map(made: Written) -> None:
    for record in made.records:
        path = made.folder / record['file'].replace('images', 'annotations').replace('jpg', 'png')
        with Image.open(path) as values:
            counts = np.bincount(np.asarray(values).ravel(), minlength=9)
        assert record['pixels'] == counts.tolist()


def test_list_of_classes_counts_from_one(made: Written) -> None:
    head, *lines = (made.folder / 'objectInfo.txt').read_text('utf-8').splitlines()
    assert head.split('\t') == ['Idx', 'Name']
    assert [line.split('\t') for line in lines] == [
        [str(label(name)), name] for name in ADE_CLASSES]


def test_counts_by_hand(tmp_path: Path) -> None:
    def record(split: str, void: int, ground: int, star: int) -> dict:
        return {'split': split, 'pixels': [void, ground, 0, 0, 0, 0, 0, star, 0]}

    counts = ade.complete(tmp_path, [record('train', 10, 50, 40), record('val', 0, 10, 90),
                                     record('train', 30, 270, 0)])
    assert counts == {
        'train': {'images': 2, 'void_percent': 10, 'background_percent': 80},
        'val': {'images': 1, 'void_percent': 0, 'background_percent': 10}}


def test_a_picture_depends_on_its_job_alone(made: Written, tmp_path: Path) -> None:
    ade.prepare(tmp_path)
    for number in (9, 2):
        record = ade.draw(tmp_path, made.jobs[number])
        assert record == made.records[number]
        for name in (record['file'],
                     record['file'].replace('images', 'annotations').replace('jpg', 'png')):
            assert (tmp_path / name).read_bytes() == (made.folder / name).read_bytes()


@pytest.mark.parametrize(('scale', 'train', 'val'), [(1, 1500, 120), (0.01, 15, 1)])
def test_plan_holds_every_picture_once(scale: float, train: int, val: int) -> None:
    jobs = ade.plan(0, scale)
    assert len(set(jobs)) == len(jobs) == train + val
    assert sum(job.split == 'train' for job in jobs) == train
