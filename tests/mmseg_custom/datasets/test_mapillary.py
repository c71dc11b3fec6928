"""Mapillary Vistas with the classes of Cityscapes."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmseg.datasets import CityscapesDataset, MapillaryDataset_v1
from mmseg.registry import DATASETS

import mmseg_custom  # noqa: F401
from mmseg_custom.datasets.mapillary import SOURCES, MapillaryAsCityscapes

# Of InternImage's recipes: the numbers of Mapillary Vistas v1.2 for each class of Cityscapes.
NUMBERS = [[13, 24, 41], [2, 15], [17], [6], [3], [45, 47], [48], [50], [30], [29], [27], [19],
           [20, 21, 22], [55], [61], [54], [58], [57], [52]]


def test_numbers_are_the_published_ones() -> None:
    assert tuple(SOURCES) == CityscapesDataset.METAINFO['classes']
    expected = {number: new for new, numbers in enumerate(NUMBERS) for number in numbers}
    assert MapillaryAsCityscapes.get_label_map() == {
        old: expected.get(old, 255) for old in range(len(MapillaryDataset_v1.METAINFO['classes']))}


def test_label_maps_are_read_as_cityscapes(tmp_path: Path) -> None:
    (tmp_path / 'images').mkdir()
    (tmp_path / 'labels').mkdir()
    values = np.array([[13, 24, 41], [0, 65, 52]], np.uint8)
    cv2.imwrite(str(tmp_path / 'images' / 'a.jpg'), np.zeros((2, 3, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'labels' / 'a.png'), values)
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(dict(
            type='MapillaryAsCityscapes', data_root=str(tmp_path),
            data_prefix=dict(img_path='images', seg_map_path='labels'),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]))
    assert dataset[0]['gt_seg_map'].tolist() == [[0, 0, 0], [255, 255, 18]]
    assert dataset.metainfo['classes'] == CityscapesDataset.METAINFO['classes']
    assert len(dataset.metainfo['palette']) == 19


def test_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"metainfo.classes is not valid: got \['road'\], exp"):
        MapillaryAsCityscapes(metainfo=dict(classes=('road',)), lazy_init=True)
