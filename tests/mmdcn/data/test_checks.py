"""Checks of data sets, on their own."""
from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset

from mmdcn.data.checks import check_dataset, drop_samples, leaves
from mmdcn.errors import UserError
from tests.mmdcn.data.images import Images, write_images


@pytest.mark.parametrize('serialize', [True, False])
def test_bad_samples_are_dropped_below_wrappers(tmp_path, serialize):
    first = Images(write_images(tmp_path / 'a', 5), serialize)
    second = Images(write_images(tmp_path / 'b', 4), serialize)
    (tmp_path / 'a' / '1.jpg').unlink()
    (tmp_path / 'b' / '3.jpg').write_bytes(b'')
    whole = ConcatDataset([first, second])
    assert len(whole) == 9 and list(leaves(whole)) == [first, second]
    lines: list[str] = []
    bad = check_dataset(whole, 'train', True, lines.append)
    assert bad == [[1], [3]] and len(lines) == 2 and len(whole) == 9
    drop_samples(whole, bad)
    names = [Path(whole.get_data_info(i)['img_path']).stem for i in range(len(whole))]
    assert names == ['0', '2', '3', '4', '0', '1', '2']


def test_repetition_is_counted_anew(tmp_path):
    whole = RepeatDataset(Images(write_images(tmp_path, 5)), 3)
    drop_samples(whole, [[0, 4]])
    assert len(whole) == 9
    assert Path(whole.get_data_info(3)['img_path']).stem == '1'


def test_class_balance_is_counted_anew(tmp_path):
    balanced = ClassBalancedDataset(Images(write_images(tmp_path, 6)), oversample_thr=0.1)
    drop_samples(balanced, [[0, 3]])
    assert len(balanced) == 4
    names = {Path(balanced.get_data_info(i)['img_path']).stem for i in range(len(balanced))}
    assert names == {'1', '2', '4', '5'}


def test_empty_data_set():
    with pytest.raises(UserError, match='train is empty'):
        check_dataset(Images([], serialize_data=False), 'train', False, print)
