"""Masks of COCO annotations on their own; the variants of files are in test_coco_annotations."""
from __future__ import annotations

import pytest

pytest.importorskip('mmdet')

from mmdcn.errors import UserError
from mmdet_custom.datasets.coco_annotations import Notes
from mmdet_custom.datasets.coco_masks import mend_flat_polygons, mend_masks

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


def content(*masks):
    return dict(images=[dict(id=1, width=40, height=30)], annotations=[
        dict(id=i, image_id=1, category_id=i, segmentation=mask) for i, mask in enumerate(masks)])


@pytest.mark.parametrize(('mask', 'expected'), [
    ([SQUARE], [SQUARE]), ([SQUARE, [1, 1]], [SQUARE]), ([[1, 1, 2], SQUARE, SQUARE], [SQUARE] * 2),
    (dict(size=[30, 40], counts='abc'), dict(size=[30, 40], counts='abc')),
    (dict(size=[30, 40], counts=[1000, 200]), dict(size=[30, 40], counts=[1000, 200])),
])
def test_masks_that_pass(mask, expected):
    given = content([SQUARE], mask)
    mend_masks(given, {0, 1}, Notes('file'))
    assert given['annotations'][1]['segmentation'] == expected


@pytest.mark.parametrize('mask', [
    None, [], {}, 'mask', 7, [7], [[]], [SQUARE[:5]], [SQUARE[:7]], [['a'] * 6], [None],
    dict(size=[30, 40]), dict(size=[30, 40], counts=''), dict(size=[40, 30], counts='abc'),
    dict(size=[30, 40], counts=[1000, 201]), dict(counts='abc'), dict(size=30, counts='abc'),
    dict(size=[30, 40], counts=[None]),
])
def test_masks_that_are_refused(mask):
    with pytest.raises(UserError, match='file: annotation id 1 of image id 1 is not valid: got '):
        mend_masks(content([SQUARE], mask), {0, 1}, Notes('file'))
    mend_masks(content([SQUARE], mask), {0}, Notes('file'))


def test_flat_polygons():
    given, notes = content(SQUARE, [SQUARE], dict(size=[1, 1])), Notes('file')
    mend_flat_polygons(given, notes)
    assert [entry['segmentation'] for entry in given['annotations']] == [
        [SQUARE], [SQUARE], dict(size=[1, 1])]
    assert notes.lines == ['segmentation as one flat list of numbers was read as one polygon: 1, '
                           'the first annotation id 0 of image id 1']
