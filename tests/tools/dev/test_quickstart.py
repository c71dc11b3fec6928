"""Pictures of the quickstart."""
from __future__ import annotations

import numpy as np
import pytest

from mmdcn.apis.drawing import mask_to_rle
from tools.dev import quickstart

ANNOTATIONS = {
    'images': [dict(id=i, file_name=f'{i}.jpg', height=20, width=30) for i in range(1, 7)],
    'categories': [dict(id=4, name='ring'), dict(id=9, name='star')],
    'annotations': [
        dict(image_id=i, category_id=9, iscrowd=0, bbox=[2, 3, 10, 8],
             segmentation=[[2, 3, 12, 3, 12, 11, 2, 11]]) for i in (1, 1, 2, 3, 3, 5, 5, 5)],
}


@pytest.mark.parametrize(('count', 'picked'), [(2, [1, 3]), (4, [1, 2, 3, 5]), (9, [1, 2, 3, 5])])
def test_picks_images_with_objects(count, picked):
    assert [image['id'] for image in quickstart.pick_images(ANNOTATIONS, count)] == picked


def test_polygon_and_run_lengths_give_the_same_mask():
    polygon = quickstart.to_mask([[2, 3, 12, 3, 12, 11, 2, 11]], 20, 30)
    assert polygon.shape == (20, 30)
    assert polygon[5, 5] and not polygon[15, 5]
    assert np.array_equal(quickstart.to_mask(mask_to_rle(polygon), 20, 30), polygon)


def test_drawing_marks_the_object_in_its_class_colour():
    image = np.zeros((20, 30, 3), np.uint8)
    truth = quickstart.truth_of(ANNOTATIONS, ANNOTATIONS['images'][1])
    assert [item['caption'] for item in truth] == ['star']
    drawn = quickstart.draw(image, truth)
    assert drawn.shape == (60, 90, 3)
    inside, colour = drawn[8 * 3, 9 * 3].astype(int), np.array(quickstart.COLOURS[1])
    assert np.allclose(inside, 0.45 * colour, atol=2)
    assert (drawn[-1, -1] == 0).all()


@pytest.mark.parametrize('count', [1, 2, 5])
def test_montage_holds_every_pair(count):
    pairs = [(np.full((12, 10, 3), 10 * i, np.uint8), np.full((8, 14, 3), 10 * i + 5, np.uint8))
             for i in range(count)]
    sheet = quickstart.montage(pairs)
    for i in range(count):
        assert (sheet == 10 * i).all(axis=2).sum() >= 120
        assert (sheet == 10 * i + 5).all(axis=2).sum() >= 112
