"""Label maps are read as mmseg reads them, and refused by name where they cannot be right."""
from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmseg')

from mmengine.registry import TRANSFORMS, DefaultScope
from mmseg.datasets.transforms import LoadAnnotations

from mmdcn.errors import SampleError
from mmseg_custom.datasets.transforms import (
    CheckedLoadAnnotations,
    NameClasses,
    label_table,
    strange_labels,
)
from tests import tiny
from tools import train


def sample(path, **more):
    return dict(seg_map_path=str(path), reduce_zero_label=False, label_map=None, seg_fields=[],
                **more)


def save(path, labels):
    Image.fromarray(np.asarray(labels, np.uint8)).save(path)
    return path


def test_configs_get_it_under_the_name_of_mmseg():
    with DefaultScope.overwrite_default_scope('mmseg'):
        assert isinstance(TRANSFORMS.build(dict(type='LoadAnnotations')), CheckedLoadAnnotations)
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert not isinstance(TRANSFORMS.build(dict(type='LoadAnnotations', with_bbox=True)),
                              LoadAnnotations)


@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 255, 1: 0, 2: 255, 3: 1}, {0: 1, 1: 0}])
def test_all_values_are_read_as_mmseg_reads_them(tmp_path, reduce_zero_label, label_map):
    save(tmp_path / 'a.png', np.arange(256).reshape(8, 32))
    info = dict(sample(tmp_path / 'a.png'), reduce_zero_label=reduce_zero_label,
                label_map=label_map)
    theirs, ours = ([kind().transform(dict(info, seg_fields=[]))
                     for kind in (LoadAnnotations, CheckedLoadAnnotations)])
    assert np.array_equal(theirs['gt_seg_map'], ours['gt_seg_map'])
    assert ours['gt_seg_map'].dtype == np.uint8 and ours['seg_fields'] == theirs['seg_fields']


@pytest.mark.parametrize('shape', [(1, 5), (5, 1), (1, 1)])
def test_map_of_one_row_stays_a_map(tmp_path, shape):
    path = save(tmp_path / 'a.png', np.zeros(shape))
    assert CheckedLoadAnnotations().transform(sample(path, ori_shape=shape)
                                              )['gt_seg_map'].shape == shape


@pytest.mark.parametrize(('labels', 'more', 'words'), [
    ([[0, 1], [9, 255]], dict(label_values=(2, 255)),
     'a.png holds the values 9, expected 0 to 1 for 2 classes, or 255 to ignore'),
    ([[0, 1]], dict(ori_shape=(2, 1), img_path='b.jpg'),
     'a.png has 2x1 pixels, its picture b.jpg has 1x2, expected the same size'),
    ([[[0, 1, 1]]], {}, r'a.png is decoded to the shape \(1, 1, 3\), expected one channel'),
    ([[0, 1]], dict(reduce_zero_label=True), 'got False for LoadAnnotations and True for the da'),
])
def test_what_cannot_be_right_is_refused_with_its_name(tmp_path, labels, more, words):
    info = {**sample(save(tmp_path / 'a.png', labels)), **more}
    with pytest.raises(SampleError, match=words):
        CheckedLoadAnnotations(reduce_zero_label=False).transform(info)


def test_values_that_8_bit_would_wrap(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.array([[0, 300]], np.uint16))
    assert LoadAnnotations().transform(sample(tmp_path / 'a.png'))['gt_seg_map'].max() == 44
    with pytest.raises(SampleError, match='holds the values 300.* are read as 8 bit'):
        CheckedLoadAnnotations().transform(sample(tmp_path / 'a.png'))
    cv2.imwrite(str(tmp_path / 'a.png'), np.array([[0, 200]], np.uint16))
    assert CheckedLoadAnnotations().transform(sample(tmp_path / 'a.png'))['gt_seg_map'].max() == 200


def test_what_is_no_image_is_named(tmp_path, monkeypatch):
    (tmp_path / 'a.png').write_bytes(b'no image')
    with pytest.raises(SampleError, match='a.png cannot be read'):
        CheckedLoadAnnotations().transform(sample(tmp_path / 'a.png'))
    with pytest.raises(SampleError, match='b.png cannot be read .*No such file'):
        CheckedLoadAnnotations().transform(sample(tmp_path / 'b.png'))
    save(tmp_path / 'a.png', np.zeros((20, 20)))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    with pytest.raises(SampleError, match='a.png cannot be read .*exceeds limit'):
        CheckedLoadAnnotations().transform(sample(tmp_path / 'a.png'))


def test_classes_travel_to_worker_processes():
    named = pickle.loads(pickle.dumps(NameClasses(3, 7)))
    assert named.transform({}) == {'label_values': (3, 7)}


def test_strange_labels():
    values = [0, 1, 2, 3, 255, 256, -1, 0.5, float('nan')]
    found = strange_labels(values[:7], label_table(True, None), 2, 255)
    assert found == [-1, 3, 256]
    assert strange_labels([0, 1, 2], label_table(False, {2: 0}), 2, 255) == []
    assert str(strange_labels(values[7:], label_table(False, None), 2, 255)) == '[0.5, nan]'


@pytest.mark.parametrize(('workers', 'spoil', 'words'), [
    (2, lambda labels: np.where(labels == 2, 9, labels), 'holds the values 9, expected 1 to 2'),
    (0, lambda labels: labels[:20], 'has 64x20 pixels, its picture'),
])
def test_map_that_no_check_has_seen_ends_the_run_by_name(tmp_path, capsys, workers, spoil, words):
    config = tiny.make_segmentor(tmp_path / 'data')
    path = tmp_path / 'data' / 'annotations' / '2.png'
    save(path, spoil(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))
    code = train.main([str(config), '--work-dir', str(tmp_path / 'work'), '--trust-data',
                       '--cfg-options', f'train_dataloader.num_workers={workers}'])
    message = capsys.readouterr().err
    assert code == 2 and 'Traceback' not in message
    assert f'label map is not valid: {path} {words}' in message
