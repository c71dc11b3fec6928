"""Label maps are looked into for values that are no class."""
from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip('mmseg')

from mmdcn.data.checks import find_check
from mmdcn.errors import UserError
from mmseg_custom.datasets.checks import LabelMapCheck


class Maps(SimpleNamespace):
    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return {'seg_map_path': str(self.paths[index])}


def maps(folder, *arrays, **settings):
    paths = []
    for i, array in enumerate(arrays):
        paths.append(folder / f'{i}.png')
        cv2.imwrite(str(paths[-1]), np.array(array, np.uint8))
    return Maps(paths=paths, **{'metainfo': dict(classes=('a', 'b')), 'reduce_zero_label': False,
                                'ignore_index': 255, **settings})


def test_serves_all_segmentation_sets():
    from mmseg.datasets import ADE20KDataset, CityscapesDataset
    assert isinstance(find_check(ADE20KDataset), LabelMapCheck)
    assert find_check(CityscapesDataset) is find_check(ADE20KDataset)


@pytest.mark.parametrize(('values', 'settings'), [
    ([[0, 1], [1, 255]], {}), ([[0, 1], [2, 255]], dict(reduce_zero_label=True)),
    ([[0, 7], [1, 1]], dict(ignore_index=7)), ([[0, 9], [1, 1]], dict(label_map={9: 1})),
    ([[9]], dict(metainfo={})),
])
def test_classes_and_ignored_values_pass(tmp_path, values, settings):
    LabelMapCheck().check(maps(tmp_path, values, **settings), 'train')


@pytest.mark.parametrize(('values', 'settings', 'words'), [
    ([[0, 2]], {}, r'0\.png of train holds the class numbers 2, expected 0 to 1 for 2 classes'),
    ([[3, 1]], dict(reduce_zero_label=True), r'class numbers 2 \(after reduce_zero_label\)'),
    ([[0, 255]], dict(ignore_index=7), 'class numbers 255'),
    ([[[0, 1, 1]]], {}, r'has shape \(1, 1, 3\), expected one channel'),
])
def test_strange_values_are_named(tmp_path, values, settings, words):
    with pytest.raises(UserError, match=words):
        LabelMapCheck().check(maps(tmp_path, values, **settings), 'train')


def test_subset_of_classes_is_read_as_the_loader_reads_it(tmp_path):
    from mmseg.datasets import BaseSegDataset

    class Three(BaseSegDataset):
        METAINFO = dict(classes=('a', 'b', 'c'), palette=[[0, 0, 0]] * 3)

    labels = [[0, 1, 2, 3], [255, 1, 2, 3]]
    for folder, array in (('images', np.zeros((2, 4, 3))), ('maps', labels)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / '0.png'), np.array(array, np.uint8))
    made = Three(data_root=str(tmp_path), data_prefix=dict(img_path='images', seg_map_path='maps'),
                 img_suffix='.png', metainfo=dict(classes=('c',)), reduce_zero_label=True,
                 pipeline=[dict(type='mmseg.LoadAnnotations')])
    assert np.unique(made[0]['gt_seg_map']).tolist() == [0, 255]
    LabelMapCheck().check(made, 'train')
    cv2.imwrite(str(tmp_path / 'maps' / '0.png'), np.array([[3, 4]], np.uint8))
    assert np.unique(made[0]['gt_seg_map']).tolist() == [0, 3]
    with pytest.raises(UserError, match=r'class numbers 3 \(after reduce_zero_label\)'):
        LabelMapCheck().check(made, 'train')


def test_some_of_many_are_opened_first_and_last_included(tmp_path):
    good = [[0, 1]]
    for bad in (0, 39):
        arrays = [[[5, 5]] if i == bad else good for i in range(40)]
        with pytest.raises(UserError, match=rf'{bad}\.png'):
            LabelMapCheck().check(maps(tmp_path, *arrays), 'train')


def test_missing_and_damaged_maps_are_for_the_check_of_files(tmp_path):
    both = maps(tmp_path, [[0]], [[1]])
    both.paths[0].unlink()
    both.paths[1].write_bytes(b'no png')
    LabelMapCheck().check(both, 'train')
