"""Checks of data sets, on their own."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset

from mmcls_custom.engine.data_check import (
    check_dataset,
    check_files,
    coco_categories,
    drop_samples,
    image_problem,
    leaves,
)
from mmcls_custom.engine.errors import UserError


class Images(BaseDataset):
    """Data set of given image files."""

    def __init__(self, paths: list[Path], serialize_data: bool = True) -> None:
        self.paths = paths
        super().__init__(serialize_data=serialize_data)

    def load_data_list(self) -> list[dict]:
        return [{'img_path': str(path)} for path in self.paths]

    def get_cat_ids(self, idx: int) -> list[int]:
        return [idx % 2]


def write_images(folder: Path, count: int, suffix: str = '.jpg') -> list[Path]:
    folder.mkdir(exist_ok=True)
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    paths = [folder / f'{i}{suffix}' for i in range(count)]
    for path in paths:
        assert cv2.imwrite(str(path), image)
    return paths


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.tif', '.webp'])
def test_image_cut_anywhere_is_found(tmp_path, suffix):
    path, = write_images(tmp_path, 1, suffix)
    whole = path.read_bytes()
    assert image_problem(str(path)) is None
    for share in (0.0, 0.001, 0.3, 0.6, 0.9):
        path.write_bytes(whole[:int(len(whole) * share)])
        assert image_problem(str(path)), f'{share} of the file'


def test_bytes_after_the_end_are_allowed(tmp_path):
    path, = write_images(tmp_path, 1)
    path.write_bytes(path.read_bytes() + b'\0' * 10)
    assert image_problem(str(path)) is None


def test_text_under_an_image_name(tmp_path):
    (tmp_path / 'a.jpg').write_text('not found, sorry')
    assert 'cannot be decoded' in image_problem(str(tmp_path / 'a.jpg'))


def test_files_of_other_kinds_pass(tmp_path):
    (tmp_path / 'points.bin').write_bytes(b'123456789')
    assert image_problem(str(tmp_path / 'points.bin')) is None


def test_findings(tmp_path):
    paths = write_images(tmp_path / 'a', 6) + [tmp_path / 'none' / 'x.jpg']
    paths[1].unlink()
    paths[4].write_bytes(paths[4].read_bytes()[:300])
    findings = check_files(Images(paths + [paths[4]]))
    assert list(findings.missing) == [str(paths[1]), str(paths[6])]
    assert list(findings.damaged) == [str(paths[4])]
    assert findings.bad_samples == [1, 4, 6, 7] and findings.total == 8


def test_description_is_short(tmp_path):
    text = check_files(Images([tmp_path / f'{i}.jpg' for i in range(30)])).describe()
    assert len(text.splitlines()) == 6 and text.endswith('and 25 more')


def test_remote_paths_are_left_alone():
    assert not check_files(Images(['s3://bucket/1.jpg'])).bad_samples


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


@pytest.mark.parametrize('pad', [0, 200_000])
def test_categories_are_read_wherever_they_stand(tmp_path, pad):
    names = ['a "quoted" name', 'größe', 'x' * 70_000]
    content = {'info': {'note': '"categories"'}, 'images': [{'file_name': 'f' * pad}],
               'categories': [{'id': i, 'name': name} for i, name in enumerate(names)]}
    path = tmp_path / 'a.json'
    for order in (content, dict(reversed(content.items()))):
        path.write_text(json.dumps(order, ensure_ascii=False), encoding='utf-8')
        assert coco_categories(str(path)) == names


@pytest.mark.parametrize('content', ['', '{}', '{"categories": {}}', '{"categories": [1, 2]}',
                                     '{"categories": [{"id": 1'])
def test_no_categories(tmp_path, content):
    (tmp_path / 'a.json').write_text(content)
    assert coco_categories(str(tmp_path / 'a.json')) is None
