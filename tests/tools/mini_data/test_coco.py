"""The mini COCO set: ids, boxes, polygons, crowds, and that a picture depends on its job alone."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as masks

from tests.tools.mini_data.conftest import Written
from tools.mini_data import coco
from tools.mini_data.classes import COCO_CATEGORY_IDS
from tools.mini_data.scenes import Item, Scene
from tools.mini_data.silhouettes import SUPERSAMPLING as S
from tools.mini_data.sources import LICENSES, PHOTOS


@pytest.fixture
def made(written: Callable[[str], Written]) -> Written:
    return written('coco')


def annotation_file(made: Written, split: str) -> dict:
    path = made.folder / 'annotations' / f'instances_{split}2017.json'
    return json.loads(path.read_text('utf-8'))


@pytest.mark.parametrize(('scale', 'train', 'val'), [(1, 1600, 150), (0.1, 160, 15), (1e-6, 1, 1)])
def test_plan_holds_every_picture_once(scale: float, train: int, val: int) -> None:
    jobs = coco.plan(0, scale)
    assert len(set(jobs)) == len(jobs) == train + val
    assert sum(job.split == 'val' for job in jobs) == val


@pytest.mark.parametrize('split', ['train', 'val'])
def test_pictures_are_as_they_are_listed(made: Written, split: str) -> None:
    content = annotation_file(made, split)
    names = {path.name for path in (made.folder / f'{split}2017').iterdir()}
    assert {image['file_name'] for image in content['images']} == names
    for image in content['images']:
        assert image['file_name'] == f'{image["id"]:012d}.jpg'
        with Image.open(made.folder / f'{split}2017' / image['file_name']) as picture:
            assert picture.size == (image['width'], image['height'])


def test_ids_are_unique_and_not_consecutive(made: Written) -> None:
    train, val = (annotation_file(made, split) for split in ('train', 'val'))
    for kind in ('images', 'annotations'):
        ids = [entry['id'] for content in (train, val) for entry in content[kind]]
        assert len(set(ids)) == len(ids)
    images = [image['id'] for image in train['images']]
    assert images != list(range(images[0], images[0] + len(images)))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_annotations_point_to_pictures_and_categories(made: Written, split: str) -> None:
    content = annotation_file(made, split)
    images = {image['id'] for image in content['images']}
    assert {entry['name']: entry['id'] for entry in content['categories']} == COCO_CATEGORY_IDS
    assert {entry['supercategory'] for entry in content['categories']} == {'digit', 'shape'}
    for entry in content['annotations']:
        assert entry['image_id'] in images
        assert entry['category_id'] in COCO_CATEGORY_IDS.values()


def test_licenses_are_those_of_the_photographs(made: Written) -> None:
    for split in ('train', 'val'):
        content = annotation_file(made, split)
        names = {entry['id']: entry['name'] for entry in content['licenses']}
        assert set(names.values()) == set(LICENSES)
        for image, record in zip(content['images'],
                                 [r for r in made.records if r['split'] == split], strict=True):
            photo = PHOTOS[record['provenance']['photo']]
            assert names[image['license']] == photo.license and photo.split == split


def test_boxes_and_polygons_lie_within_their_picture(made: Written) -> None:
    several = 0
    for record in made.records:
        width, height = record['image']['width'], record['image']['height']
        for entry in record['annotations']:
            x, y, w, h = entry['bbox']
            assert x >= 0 and y >= 0 and w >= 1 and h >= 1
            assert x + w <= width and y + h <= height
            if entry['iscrowd']:
                continue
            several += len(entry['segmentation']) > 1
            for polygon in entry['segmentation']:
                assert len(polygon) >= 6 and len(polygon) % 2 == 0
                assert min(polygon) >= 0 and max(polygon[::2]) <= width
                assert max(polygon[1::2]) <= height
            runs = masks.merge(masks.frPyObjects(entry['segmentation'], height, width))
            assert masks.area(runs) == pytest.approx(entry['area'], rel=0.05, abs=15)
            np.testing.assert_allclose(masks.toBbox(runs), entry['bbox'], atol=1.1)
    assert several


def test_crowds_are_run_lengths_with_their_own_box(made: Written) -> None:
    found = [(record['image'], entry) for record in made.records
             for entry in record['annotations'] if entry['iscrowd']]
    assert found
    for image, entry in found:
        assert entry['segmentation']['size'] == [image['height'], image['width']]
        runs = masks.frPyObjects(entry['segmentation'], image['height'], image['width'])
        assert masks.area(runs) == entry['area']
        assert masks.toBbox(runs).tolist() == entry['bbox']


def test_empty_pictures_and_crowds_come_in_turn(made: Written) -> None:
    for job, record in zip(made.jobs, made.records, strict=True):
        crowds = [entry['iscrowd'] for entry in record['annotations']]
        assert (not crowds) == (job.index % 25 == 24)
        assert sum(crowds) == (job.index % 30 == 10)


def test_counts_are_those_of_the_files(made: Written) -> None:
    for split, counts in made.counts.items():
        content = annotation_file(made, split)
        crowds = sum(entry['iscrowd'] for entry in content['annotations'])
        seen = {entry['image_id'] for entry in content['annotations']}
        assert counts == {'images': len(content['images']), 'crowds': crowds,
                          'objects': len(content['annotations']) - crowds,
                          'empty_images': len(content['images']) - len(seen)}


def test_a_picture_depends_on_its_job_alone(made: Written, tmp_path: Path) -> None:
    coco.prepare(tmp_path)
    for number in (30, 10, 0):  # in another order, without the others
        record = coco.draw(tmp_path, made.jobs[number])
        assert record == made.records[number]
        assert (tmp_path / record['file']).read_bytes() == (
            made.folder / record['file']).read_bytes()


@pytest.mark.parametrize(('name', 'low'), [('circle', 24), ('digit_4', 36)])
def test_sizes_run_from_small_to_large(name: str, low: float) -> None:
    class Fixed:
        def __init__(self, value: float) -> None:
            self.value = value

        def uniform(self) -> float:
            return self.value

    sizes = [coco.draw_size(Fixed(i / 10), name, 24, 90) for i in range(11)]
    assert sizes == sorted(sizes) and len(set(sizes)) == 11
    assert (sizes[0], sizes[-1]) == (low, pytest.approx(90))


def test_objects_are_annotated_by_what_is_seen_of_them() -> None:
    top = np.zeros((20 * S, 30 * S), np.uint8)
    top[4 * S:12 * S, 5 * S:17 * S] = 1
    top[8 * S:16 * S, 11 * S:25 * S] = 2
    scene = Scene(np.zeros((20, 30, 3), np.uint8), top, 'coffee', (0, 0, 30, 20), False,
                  [Item('square'), Item('star', crowd=True)])
    square, crowd = coco._annotate(scene)
    assert square['category_id'] == COCO_CATEGORY_IDS['square'] and square['iscrowd'] == 0
    assert square['area'] == pytest.approx(12 * 8 - 6 * 4, abs=8)
    np.testing.assert_allclose(square['bbox'], [5, 4, 12, 8], atol=0.26)
    assert (crowd['category_id'], crowd['iscrowd']) == (COCO_CATEGORY_IDS['star'], 1)
    assert crowd['area'] == 14 * 8 and crowd['bbox'] == [11, 8, 14, 8]
