"""NYU Depth V2 as a set for segmentation."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS

import mmseg_custom  # noqa: F401


def test_files_of_the_list_are_read_without_void(tmp_path: Path) -> None:
    for folder in ('image', 'label40'):
        (tmp_path / folder).mkdir()
    for name in ('1', '2', '3'):
        cv2.imwrite(str(tmp_path / 'image' / f'{name}.png'), np.zeros((2, 3, 3), np.uint8))
        cv2.imwrite(str(tmp_path / 'label40' / f'{name}.png'),
                    np.array([[0, 1, 40], [2, 3, int(name)]], np.uint8))
    (tmp_path / 'train.txt').write_text('1\n3\n')
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(dict(
            type='NYUDepthV2Dataset', data_root=str(tmp_path), ann_file='train.txt',
            data_prefix=dict(img_path='image', seg_map_path='label40'),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]))
    assert [Path(dataset[i]['img_path']).name for i in range(len(dataset))] == ['1.png', '3.png']
    assert dataset[1]['gt_seg_map'].tolist() == [[255, 0, 39], [1, 2, 2]]
    assert len(dataset.metainfo['classes']) == len(dataset.metainfo['palette']) == 40
