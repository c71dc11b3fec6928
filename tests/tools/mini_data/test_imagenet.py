"""The mini ImageNet set: a folder per class, one object per picture."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.tools.mini_data.conftest import Written
from tools.mini_data import imagenet
from tools.mini_data.classes import IMAGENET_CLASSES
from tools.mini_data.sources import digit_indices


@pytest.fixture
def made(written: Callable[[str], Written]) -> Written:
    return written('imagenet')


@pytest.mark.parametrize(('split', 'count'), [('train', 6), ('val', 1)])
def test_folders_are_the_classes(made: Written, split: str, count: int) -> None:
    folders = sorted((made.folder / split).iterdir())
    assert tuple(folder.name for folder in folders) == IMAGENET_CLASSES
    assert [len(list(folder.iterdir())) for folder in folders] == [count] * len(IMAGENET_CLASSES)
    for path in (made.folder / split).rglob('*.JPEG'):
        with Image.open(path) as picture:
            assert picture.format == 'JPEG' and picture.size in imagenet.SIZES


def test_names_of_train_tell_the_class_and_those_of_val_do_not(made: Written) -> None:
    for path in (made.folder / 'train').rglob('*.JPEG'):
        name, _, number = path.stem.rpartition('_')
        assert name == path.parent.name and len(number) == 5 and int(number) < 6
    names = [path.name for path in (made.folder / 'val').rglob('*.JPEG')]
    assert len(set(names)) == len(names)
    assert not any(name in stem for name in IMAGENET_CLASSES for stem in names)


def test_digits_are_those_of_their_folder_and_split(made: Written) -> None:
    for record in made.records:
        split, name = record['file'].split('/')[:2]
        digits = record['provenance']['digits']
        assert record['split'] == split
        if name.startswith('digit_'):
            index, = digits
            assert index in digit_indices(int(name[-1]), split)
        else:
            assert digits == []


@pytest.mark.parametrize(('scale', 'train', 'val'), [(1, 1100, 50), (0.01, 11, 1)])
def test_classes_take_turns(scale: float, train: int, val: int) -> None:
    jobs = imagenet.plan(0, scale)
    assert len(set(jobs)) == len(jobs)
    for split, count in (('train', train), ('val', val)):
        turns = Counter(job.index % len(IMAGENET_CLASSES) for job in jobs if job.split == split)
        assert turns == dict.fromkeys(range(len(IMAGENET_CLASSES)), count)


def test_objects_are_whole_and_large(made: Written, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every object at least 95 % lie in the picture, which it fills to a good part."""
    scenes = []
    finish = imagenet.finish

    def watched(rng: object, scene: object) -> object:
        scenes.append(scene)
        return finish(rng, scene)
    monkeypatch.setattr(imagenet, 'finish', watched)
    imagenet.prepare(tmp_path)
    for job in made.jobs[:32]:
        imagenet.draw(tmp_path, job)
    for job, scene in zip(made.jobs, scenes, strict=False):
        item, = scene.items
        assert item.name == IMAGENET_CLASSES[job.index % len(IMAGENET_CLASSES)]
        assert (scene.top == 1).sum() >= 0.95 * item.area
        rows = scene.top.any(1).sum() / scene.top.shape[0]
        assert rows > 0.35


def test_objects_that_do_not_fit_are_drawn_smaller(tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def refuse(rng: object, scene: object, name: str, size: float, split: str,
               least: float) -> bool:
        sizes.append(size)
        return len(sizes) == 4
    monkeypatch.setattr(imagenet, 'add_object', refuse)
    imagenet.prepare(tmp_path)
    imagenet.draw(tmp_path, imagenet.plan(0, 0.01)[0])
    assert sizes[1:] == pytest.approx([0.9 * size for size in sizes[:-1]]) and len(sizes) == 4


def test_a_picture_depends_on_its_job_alone(made: Written, tmp_path: Path) -> None:
    imagenet.prepare(tmp_path)
    for number in (20, 3):
        record = imagenet.draw(tmp_path, made.jobs[number])
        assert record == made.records[number]
        assert (tmp_path / record['file']).read_bytes() == (
            made.folder / record['file']).read_bytes()


def test_counts_are_those_of_the_files(made: Written) -> None:
    assert made.counts == {split: {'images': len(list((made.folder / split).rglob('*.JPEG')))}
                           for split in ('train', 'val')}
