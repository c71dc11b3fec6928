"""Predictions of every task as plain numbers, ready for JSON."""
from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmdcn.apis.drawing import describe_sample, mask_to_rle, read_image

CLASSES = ['cat', 'dog', 'cow']


def test_masks_become_coco_run_lengths():
    coco = pytest.importorskip('pycocotools.mask')
    mask = np.random.default_rng(0).random((7, 5)) > 0.4
    rle = json.loads(json.dumps(mask_to_rle(mask)))
    assert rle['size'] == [7, 5]
    assert (coco.decode(rle).astype(bool) == mask).all()


def test_objects_above_the_threshold():
    pytest.importorskip('pycocotools')
    instances = InstanceData(
        bboxes=torch.tensor([[1., 2., 3., 4.], [0., 0., 9., 9.]]), labels=torch.tensor([1, 5]),
        scores=torch.tensor([0.9, 0.2]), masks=torch.ones(2, 3, 3, dtype=torch.bool))
    found = describe_sample(BaseDataElement(pred_instances=instances), CLASSES, 0.5)['objects']
    assert [(item['box'], item['name']) for item in found] == [([1, 2, 3, 4], 'dog')]
    assert found[0]['score'] == pytest.approx(0.9) and found[0]['mask']['size'] == [3, 3]
    everything = describe_sample(BaseDataElement(pred_instances=instances), CLASSES, 0.1)
    assert everything['objects'][1]['name'] == '5'  # beyond the names: the number


def test_shares_of_a_label_map():
    labels = torch.tensor([[[0, 0, 2, 2], [0, 0, 0, 0]]])
    sample = BaseDataElement(pred_sem_seg=PixelData(data=labels))
    assert describe_sample(sample, CLASSES, 0.5) == {'class_shares': {'cat': 0.75, 'cow': 0.25}}


@pytest.mark.parametrize('top', [1, 2, 9])
def test_best_classes_first(top):
    sample = BaseDataElement()
    sample.set_field(torch.tensor([0.1, 0.7, 0.2]), 'pred_score')
    found = describe_sample(sample, CLASSES, 0.5, top)[f'top{top}']
    assert [item['name'] for item in found] == ['dog', 'cow', 'cat'][:top]


def test_images_are_read_as_rgb(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 2] = 255  # red, as OpenCV writes it
    cv2.imwrite(str(tmp_path / 'red.png'), picture)
    image = read_image(str(tmp_path / 'red.png'))
    assert image.shape == (4, 6, 3) and image[0, 0].tolist() == [255, 0, 0]
    (tmp_path / 'text.png').write_text('no image')
    with pytest.raises(ValueError, match=r'text\.png cannot be decoded'):
        read_image(str(tmp_path / 'text.png'))
