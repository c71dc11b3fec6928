"""Variants of COCO files that people have: mended and said, or refused by name, before the run."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('mmdet')

from pycocotools import mask as rle

import mmdet_custom  # noqa: F401
from mmdcn.errors import UserError
from mmdet_custom.datasets import coco_api
from tests.mmdet_custom.datasets.coco_sets import CLASSES, HEIGHT, WIDTH, CocoSet, save_picture

NAN = float('nan')


def each(kind: str, **values: Any):
    """Change that sets values of all entries of a kind."""
    return lambda content, _: [entry.update(values) for entry in content[kind]] and None


def without(kind: str, *keys: str):
    """Change that takes keys out of all entries of a kind."""
    return lambda content, _: [entry.pop(key) for entry in content[kind] for key in keys] and None


def one(kind: str, **values: Any):
    """Change that sets values of the second entry of a kind."""
    return lambda content, _: content[kind][1].update(values)


def both(first: Any, second: Any):
    """Two changes."""
    def change(content: dict, pictures: Path) -> None:
        first(content, pictures)
        second(content, pictures)
    return change


def add(kind: str, **values: Any):
    """Change that appends an entry, like the first one but for some values."""
    return lambda content, _: content[kind].append({**content[kind][0], **values})


def numbered(start: int):
    """Change that numbers the annotations of every picture from ``start``."""
    def change(content: dict, _: Path) -> None:
        for number in (1, 2, 3):
            for i, entry in enumerate(e for e in content['annotations']
                                      if e['image_id'] == number):
                entry['id'] = start + i
    return change


def from_zero(content: dict, _: Path) -> None:
    """Annotation, image and category ids that count from 0."""
    for entry in content['annotations']:
        entry.update({key: entry[key] - 1 for key in ('id', 'image_id', 'category_id')})
    for entry in content['images'] + content['categories']:
        entry['id'] -= 1


def root_category(name: str):
    """Change that adds the root category of an export tool."""
    def change(content: dict, _: Path) -> None:
        for entry in content['categories']:
            entry['supercategory'] = name
        content['categories'].insert(0, dict(id=0, name=name, supercategory='none'))
    return change


def backslashes(content: dict, pictures: Path) -> None:
    (pictures / 'sub').mkdir()
    for entry in content['images']:
        (pictures / entry['file_name']).rename(pictures / 'sub' / entry['file_name'])
        entry['file_name'] = 'sub\\' + entry['file_name']


def codes(counts: bool, size: list[int] | None = None):
    """Change that writes masks as run-length codes, with plain counts or packed ones."""
    def change(content: dict, _: Path) -> None:
        for entry in content['annotations']:
            code = rle.merge(rle.frPyObjects(entry['segmentation'], HEIGHT, WIDTH))
            if counts:
                flat = np.concatenate([[0], rle.decode(code).T.ravel(), [2]])
                runs = np.diff(np.flatnonzero(np.diff(flat)), prepend=0)
                code['counts'] = [int(run) for run in runs]
            else:
                code['counts'] = code['counts'].decode()
            entry['segmentation'] = dict(code, size=size or code['size'])
    return change


def turned(stored: bool):
    """Change that saves pictures with EXIF orientation 6; sizes are those as stored, or upright."""
    def change(content: dict, pictures: Path) -> None:
        size = (WIDTH, HEIGHT) if stored else (HEIGHT, WIDTH)
        for entry in content['images']:
            save_picture(pictures / entry['file_name'], size, orientation=6)
    return change


def text(mark: bytes, encoding: str):
    """Change that writes the file in an encoding behind a mark."""
    return lambda content, _: mark + json.dumps(content).encode(encoding)


# Name, change of a good set, options of the config, 'fine', 'mended', 'told' (though it cannot be
# mended) or 'refused', words of the log or of the message.
VARIANTS: list[tuple[str, Any, dict, str, list[str]]] = [
    ('as it should be', lambda content, _: None, {}, 'fine', []),
    ('packed run-length codes', codes(False), {}, 'fine', []),
    ('plain run-length codes', codes(True), {}, 'fine', []),
    ('no segmentation, boxes only', without('annotations', 'segmentation'), dict(masks=False),
     'fine', []),
    ('empty segmentation, boxes only', each('annotations', segmentation=[]), dict(masks=False),
     'fine', []),
    ('categories in other order', lambda content, _: content['categories'].reverse(), {},
     'fine', []),
    ('classes in other order', lambda content, _: None, dict(classes=('star', 'box', 'disk')),
     'fine', []),
    ('upright annotations of turned pictures', turned(False), {}, 'fine', []),
    ('annotations of turned pictures as stored, loaded so', turned(True),
     dict(color_type='color_ignore_orientation'), 'fine', []),
    ('text ids of images', lambda content, _: [
        entry.update({key: f'p{entry[key]}'}) for kind, key in (
            ('images', 'id'), ('annotations', 'image_id')) for entry in content[kind]] and None,
     {}, 'fine', []),

    ('some classes', lambda content, _: None, dict(classes=('disk', 'box')), 'mended',
     ['metainfo.classes does not name', 'star (3 annotations)']),
    ('unused root category', root_category('objects'), {}, 'mended', ['objects (0 annotations)']),
    ('root category named as a class', root_category('box'), {}, 'mended',
     ['box (0 annotations)']),
    ('ids from 0', from_zero, {}, 'mended',
     ['annotation ids were numbered anew', '1, the first annotation id 0 of image id 0']),
    ('id 0 once', one('annotations', id=0), {}, 'mended', ['annotation ids were numbered anew']),
    ('annotations without ids', without('annotations', 'id'), {}, 'mended',
     ['annotation ids were numbered anew', '9, the first']),
    ('annotation ids that start anew in every picture', numbered(1), {}, 'mended',
     ['annotation ids were numbered anew', '6, the first annotation id 1 of image id 2']),
    ('id 0 for all', each('annotations', id=0), {}, 'mended', ['9, the first annotation id 0']),
    ('text ids of annotations', one('annotations', id='a7'), {}, 'mended',
     ["annotation id 'a7' of image id 1"]),
    ('no iscrowd', without('annotations', 'iscrowd'), {}, 'mended', ['iscrowd was taken as 0']),
    ('iscrowd null', one('annotations', iscrowd=None), {}, 'mended', ['iscrowd was taken as 0']),
    ('iscrowd as text', each('annotations', iscrowd='0'), {}, 'mended', ['iscrowd']),
    ('no area', without('annotations', 'area'), {}, 'mended', ['area', 'taken from segmentation']),
    ('no area, no mask', without('annotations', 'area', 'segmentation'), dict(masks=False),
     'mended', ['area', 'else from bbox']),
    ('area 0', each('annotations', area=0), {}, 'mended', ['area that is absent or 0']),
    ('area NaN', one('annotations', area=NAN), {}, 'mended', ['area that is absent or 0']),
    ('no bbox', without('annotations', 'bbox'), {}, 'mended', ['bbox was taken from segm']),
    ('bbox empty, packed masks', both(codes(False), each('annotations', bbox=[])), {},
     'mended', ['bbox was taken from segm']),
    ('no width and height', without('images', 'width', 'height'), {}, 'mended',
     ['width and height were read', '3, the first image id 1 (1.jpg)']),
    ('height 0', one('images', height=0), {}, 'mended', ['width and height were read']),
    ('no width and height of turned pictures', both(
        turned(False), without('images', 'width')), {}, 'mended', ['width and height were read']),
    ('backslashes', backslashes, {}, 'mended', ['backslashes in file_name']),
    ('byte-order mark', text(b'\xef\xbb\xbf', 'utf-8'), {}, 'mended', ['byte-order mark']),
    ('UTF-16', text(b'\xff\xfe', 'utf-16-le'), {}, 'mended', ['byte-order mark']),
    ('flat polygon', lambda content, _: [entry.update(segmentation=entry['segmentation'][0])
                                         for entry in content['annotations']] and None, {},
     'mended', ['read as one polygon']),
    ('a stray line beside a polygon', lambda content, _: content['annotations'][1][
        'segmentation'].append([1, 1, 2, 2]), {}, 'mended', ['less than three points']),

    ('corners in place of width and height', lambda content, _: [
        entry.update(bbox=[*entry['bbox'][:2], entry['bbox'][0] + entry['bbox'][2],
                           entry['bbox'][1] + entry['bbox'][3]])
        for entry in content['annotations']] and None, {}, 'told',
     ['boxes reach beyond their picture (a bbox is [left, top, width, height])']),
    ('a box of no width', one('annotations', bbox=[5, 5, 0, 4]), {}, 'told',
     ['left out of training: 1, the first annotation id 2']),

    ('no segmentation', without('annotations', 'segmentation'), {}, 'refused',
     ['annotations.json: annotation id 1 of image id 1', 'got no segmentation',
      'expected polygons', 'with_mask=False', 'and 4 more']),
    ('no segmentation in evaluation', without('annotations', 'segmentation'),
     dict(test_mode=True), 'refused', ['annotation id 1', 'got no segmentation']),
    ('segmentation null', one('annotations', segmentation=None), {}, 'refused',
     ['annotation id 2', 'got segmentation None']),
    ('empty segmentation', one('annotations', segmentation=[]), {}, 'refused',
     ['annotation id 2', 'got segmentation []']),
    ('polygon of two points', one('annotations', segmentation=[[1, 1, 5, 5]]), {}, 'refused',
     ['annotation id 2', '[[1, 1, 5, 5]]']),
    ('polygon with NaN', one('annotations', segmentation=[[1, 1, 5, 5, NAN, 1]]), {}, 'refused',
     ['annotation id 2', 'nan']),
    ('polygon of points', one('annotations', segmentation=[[[1, 1], [5, 5], [5, 1]]]), {},
     'refused', ['annotation id 2', '[[[1, 1]']),
    ('run-length code of another size', codes(False, [WIDTH, HEIGHT]), {}, 'refused',
     ['annotation id 1', 'size [40, 30]', '[height, width] of its picture']),
    ('run-length code without counts', one('annotations', segmentation=dict(size=[30, 40])), {},
     'refused', ['annotation id 2', 'no counts']),
    ('category that is not there', one('annotations', category_id=9), {}, 'refused',
     ['annotation id 2', 'got category_id 9', "entry of 'categories'"]),
    ('annotation without category', lambda content, _: content['annotations'][1].pop(
        'category_id') and None, {}, 'refused', ['annotation id 2', 'got category_id None']),
    ('image that is not there', one('annotations', image_id=77), {}, 'refused',
     ['annotation id 2 of image id 77', "entry of 'images'"]),
    ('image id of another type', one('annotations', image_id='1'), {}, 'refused',
     ["got image_id '1'"]),
    ('two images of one id', add('images', file_name='2.jpg'), {}, 'refused',
     ['image id 1', '2 of this id: 1.jpg, 2.jpg', 'one image for each id']),
    ('two categories of one id', add('categories', name='ring'), {}, 'refused',
     ['category id 1', 'box, ring']),
    ('category without name', lambda content, _: content['categories'][1].pop('name') and None, {},
     'refused', ['category id 2', 'got name None']),
    ('image without id', lambda content, _: content['images'][1].pop('id') and None, {}, 'refused',
     ['image id None (2.jpg)', 'got id None']),
    ('two categories of one name', one('categories', name='box'), dict(classes=('box', 'star')),
     'refused', ["category 'box'", 'got the ids 1, 2']),
    ('image without file name', lambda content, _: content['images'][1].pop('file_name') and None,
     {}, 'refused', ['image id 2', 'got file_name None']),
    ('box of three numbers', one('annotations', bbox=[1, 2, 3]), {}, 'refused',
     ['annotation id 2', 'got bbox [1, 2, 3]', 'four finite numbers']),
    ('box of texts', one('annotations', bbox=['1', '2', '3', '4']), {}, 'refused',
     ['annotation id 2', "bbox ['1'"]),
    ('box with NaN', one('annotations', bbox=[1, 2, NAN, 4]), {}, 'refused',
     ['annotation id 2', 'nan']),
    ('box of negative width', one('annotations', bbox=[9, 9, -4, 4]), {}, 'refused',
     ['annotation id 2', '-4', 'not negative']),
    ('box outside', one('annotations', bbox=[41, 2, 3, 4]), {}, 'refused',
     ['annotation id 2', '[41, 2, 3, 4]', 'within its picture of 40 x 30', 'left, top']),
    ('box outside for a wrong size', each('images', width=4, height=3), {}, 'refused',
     ['image id 1', 'got 4 x 3', 'expected 40 x 30']),
    ('neither box nor mask', without('annotations', 'bbox', 'segmentation'), dict(masks=False),
     'refused', ['annotation id 1', 'got bbox None']),
    ('iscrowd of another kind', one('annotations', iscrowd='maybe'), {}, 'refused',
     ['annotation id 2', "iscrowd 'maybe'"]),
    ('size of another picture', each('images', width=80, height=60), {}, 'refused',
     ['image id 1', '1.jpg', 'got 80 x 60', 'expected 40 x 30', 'resized', 'so is image id 2']),
    ('width and height exchanged', one('images', width=HEIGHT, height=WIDTH), {}, 'refused',
     ['image id 2', 'are exchanged']),
    ('turned pictures', turned(True), {}, 'refused',
     ['image id 1', 'got 40 x 30', 'expected 30 x 40', 'EXIF orientation is 6',
      'color_ignore_orientation']),
    ('upright annotations of pictures loaded as stored', turned(False),
     dict(color_type='color_ignore_orientation'), 'refused',
     ['got 40 x 30', 'expected 30 x 40', "color_type='color'"]),
    ('sizes absent and picture absent', both(
        lambda _, pictures: (pictures / '2.jpg').unlink(), without('images', 'width')), {},
     'refused', ['image id 2', '2.jpg', 'width None']),
    ('class that is not there', lambda content, _: None, dict(classes=('box', 'disc')), 'refused',
     ['metainfo.classes', 'got disc', 'did you mean disk?', 'box, disk, star']),
    ('class named twice', lambda content, _: None, dict(classes=('box', 'box')), 'refused',
     ['metainfo.classes', 'got box more than once']),
    ('a class as text', lambda content, _: None, dict(classes='box'), 'refused',
     ["got the text 'box'", "classes=('box', )"]),
    ('not JSON', lambda content, _: b'{"images": [', {}, 'refused',
     ['annotations.json', 'not JSON']),
    ('results in place of annotations', lambda content, _: b'[{"image_id": 1}]', {}, 'refused',
     ['got a list', 'not results']),
    ('no categories', lambda content, _: content.pop('categories') and None, {}, 'refused',
     ["it lacks 'categories'"]),
]


@pytest.fixture
def log(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(coco_api, 'print_log', lambda line, **options: lines.append(line))
    return lines


@pytest.mark.parametrize(('name', 'change', 'options', 'outcome', 'words'), VARIANTS,
                         ids=[row[0] for row in VARIANTS])
def test_variant(tmp_path, log, name, change, options, outcome, words):
    coco = CocoSet(tmp_path, change, **options)
    if outcome == 'refused':
        with pytest.raises(UserError) as caught:
            coco.read()
        message = str(caught.value)
        assert all(word in message for word in words), message
        assert caught.value.expected and caught.value.remedy, message
        return
    dataset = coco.read()
    said = '\n'.join(log)
    assert bool(said) == (outcome != 'fine') and all(word in said for word in words), said
    if outcome == 'told':
        return
    for index in range(3):
        truth = coco.objects(index + 1)
        sample = dataset[index]['data_samples'].gt_instances
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (entry['bbox'] for entry in truth)]
        assert sample.bboxes.tensor.tolist() == boxes
        labels = [coco.classes.index(CLASSES[entry['category_id'] - 1]) for entry in truth]
        assert sample.labels.tolist() == labels
        if options.get('masks', True):
            assert sample.masks.to_ndarray().sum(axis=(1, 2)).tolist() == [
                entry['area'] for entry in truth]
    scores = coco.score(dataset)
    assert scores and all(scores[key] == 1.0 for key in scores if key.endswith('mAP')), scores
    assert len(log) == len(set(log)), 'said twice'


def test_table_is_long():
    assert len({row[0] for row in VARIANTS}) == len(VARIANTS) >= 75
