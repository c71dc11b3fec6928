"""Annotations in COCO's format wherever they lie."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmdcn.errors import UserError
from tests.tools.own_data import sets
from tools.own_data.coco import survey_coco


def change(root: Path, split: str, edit: Any) -> None:
    path = root / f'labels/_annotations.{split}.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_classes_are_in_the_order_of_the_file_and_pictures_are_found(tmp_path: Path) -> None:
    root = sets.write_coco(tmp_path / 'd', 6, 3)
    found = survey_coco(root, tmp_path / 'x.py', True)
    assert found.classes == list(sets.CATEGORY_IDS)
    assert found.splits['train'].counts == dict.fromkeys(sets.CATEGORY_IDS, 2)
    assert found.splits['val'].dataset == dict(
        ann_file='labels/_annotations.valid.json', data_prefix=dict(img='my pictures/valid/'))
    assert not found.texts and all(path.is_file() for path in found.splits['train'].files)


def test_pictures_beside_the_annotations_and_backslashes(tmp_path: Path) -> None:
    for split, numbers in (('train', range(4)), ('val', range(4, 7))):
        content = sets.coco_content(numbers, tmp_path / 'd' / split)
        for image in content['images']:
            image['file_name'] = f'{split}\\{image["file_name"]}'
        (tmp_path / 'd' / split / 'coco.json').write_text(json.dumps(content))
    found = survey_coco(tmp_path / 'd', tmp_path / 'x.py', True)
    assert found.splits['train'].dataset == dict(
        ann_file='train/coco.json', data_prefix=dict(img=''))


def test_an_unused_root_category_is_left_out(tmp_path: Path) -> None:
    root = sets.write_coco(tmp_path / 'd', 6, 3)

    def edit(content: dict[str, Any]) -> None:
        for entry in content['categories']:
            entry['supercategory'] = 'things'
        content['categories'].insert(0, dict(id=99, name='things', supercategory='none'))

    change(root, 'train', edit)
    found = survey_coco(root, tmp_path / 'x.py', True)
    assert found.classes == list(sets.CATEGORY_IDS)
    assert any("category 'things' has no object" in note for note in found.notes)


def test_images_without_objects_are_counted(tmp_path: Path) -> None:
    root = sets.write_coco(tmp_path / 'd', 6, 3)
    change(root, 'train', lambda content: content['annotations'].pop())
    assert survey_coco(root, tmp_path / 'x.py', True).splits['train'].empty == 1


def other_class(content: dict[str, Any]) -> None:
    content['categories'].append(dict(id=5, name='other'))
    content['annotations'][0]['category_id'] = 5


def no_pictures(content: dict[str, Any]) -> None:
    for image in content['images']:
        image['file_name'] = 'x' + image['file_name']


@pytest.mark.parametrize(('edit', 'words'), [
    (other_class, "has objects of 'other'"), (no_pictures, 'lies nowhere below'),
    (lambda content: content['images'].clear(), 'names no pictures')])
def test_validation_that_does_not_fit_is_refused(edit: Any, words: str, tmp_path: Path) -> None:
    root = sets.write_coco(tmp_path / 'd', 6, 3)
    change(root, 'valid', edit)
    with pytest.raises(UserError, match=words):
        survey_coco(root, tmp_path / 'x.py', True)


def test_other_json_files_are_no_annotations(tmp_path: Path) -> None:
    (tmp_path / 'a.json').write_text('[1]')
    with pytest.raises(UserError, match=r'has no annotations \(a\.json are of another form\)'):
        survey_coco(tmp_path, tmp_path / 'x.py', True)


def test_boxes_serve_a_detector_of_boxes(tmp_path: Path) -> None:
    root = sets.write_coco(tmp_path / 'd', 6, 3)
    for split in ('train', 'valid'):
        change(root, split, lambda content: [entry.pop('segmentation')
                                             for entry in content['annotations']])
    assert survey_coco(root, tmp_path / 'x.py', False).classes
    with pytest.raises(UserError, match='has boxes only'):
        survey_coco(root, tmp_path / 'x.py', True)
