"""Pictures and their label maps."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdcn.errors import UserError
from tests.tools.own_data import sets
from tools.own_data.label_maps import read_labels, survey_label_maps


def test_pairs_are_found_by_their_names(tmp_path: Path) -> None:
    found = survey_label_maps(sets.write_label_maps(tmp_path / 'd'), tmp_path / 'x.py')
    assert found.classes == ['ground', *sets.COLOURS]
    assert found.splits['val'].dataset == dict(
        img_suffix='.png', seg_map_suffix='_mask.png',
        data_prefix=dict(img_path='images/val', seg_map_path='masks/val'))
    assert sum(found.splits['val'].counts.values()) == 6 * 63 * 64  # without the frame of 255
    assert any('label 255 is not counted' in note for note in found.notes)


def test_without_names_labels_are_numbered(tmp_path: Path) -> None:
    root = sets.write_label_maps(tmp_path / 'd')
    (root / 'classes.txt').unlink()
    assert survey_label_maps(root, tmp_path / 'x.py').classes == [f'class_{i}' for i in range(4)]


def test_a_set_without_split_gets_lists(tmp_path: Path) -> None:
    root = sets.write_label_maps(tmp_path / 'd')
    for kind in ('images', 'masks'):
        for path in (root / kind / 'train').iterdir():
            path.rename(root / kind / path.name)
        for path in (root / kind / 'val').iterdir():
            path.unlink()
        (root / kind / 'val').rmdir()
        (root / kind / 'train').rmdir()
    found = survey_label_maps(root, tmp_path / 'x.py')
    assert found.texts[tmp_path / 'x_val.txt'].split() == ['0', '8']
    assert found.splits['train'].dataset['ann_file'] == str(tmp_path / 'x_train.txt')


def spoil_colours(root: Path) -> None:
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(root / 'masks/train/3_mask.png')


def spoil_label(root: Path) -> None:
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(root / 'masks/train/3_mask.png')


def spoil_pair(root: Path) -> None:
    (root / 'masks/train/3_mask.png').unlink()


def spoil_suffix(root: Path) -> None:
    (root / 'images/train/3.png').rename(root / 'images/train/3.jpg')


@pytest.mark.parametrize(('spoil', 'words'), [
    (spoil_colours, r'3_mask\.png is a picture in colours \(RGB\)'),
    (spoil_label, 'label maps hold 9, and there are names for 4 classes'),
    (spoil_pair, r'3\.png has no label map'), (spoil_suffix, r'end in \.png and in \.jpg')])
def test_what_is_wrong_is_named(spoil: object, words: str, tmp_path: Path) -> None:
    root = sets.write_label_maps(tmp_path / 'd')
    spoil(root)
    with pytest.raises(UserError, match=words):
        survey_label_maps(root, tmp_path / 'x.py')


def test_folders_that_do_not_belong_together_are_no_set(tmp_path: Path) -> None:
    for name in ('images/a.jpg', 'masks/b.png'):
        (tmp_path / name).parent.mkdir()
        Image.new('L', (4, 4)).save(tmp_path / name)
    with pytest.raises(UserError, match='no folders of pictures and label maps'):
        survey_label_maps(tmp_path, tmp_path / 'x.py')


def test_palettes_hold_labels(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 3], [255, 1]], np.uint8), 'L').convert('P')
    picture.putpalette([5, 6, 7] * 256)
    picture.save(tmp_path / 'a.png')
    assert read_labels(tmp_path / 'a.png').tolist() == [[0, 3], [255, 1]]
