"""A folder for each class, split or not."""
from __future__ import annotations

from pathlib import Path

import pytest

from mmdcn.errors import UserError
from tests.tools.own_data import sets
from tools.own_data.class_folders import survey_class_folders


def test_split_folders(tmp_path: Path) -> None:
    found = survey_class_folders(sets.write_class_folders(tmp_path / 'd', 6, 3), tmp_path / 'x.py')
    assert found.classes == sorted(sets.COLOURS) and not found.texts
    assert found.splits['train'].counts == dict.fromkeys(sets.COLOURS, 2)
    assert found.splits['val'].dataset == dict(data_prefix='val')


def test_classes_alone_are_split_each_by_itself(tmp_path: Path) -> None:
    root = sets.write_class_folders(tmp_path / 'd', 30, 6, split=False)
    found = survey_class_folders(root, tmp_path / 'x.py')
    assert found.splits['val'].counts == dict.fromkeys(sets.COLOURS, 2)
    lines = found.texts[tmp_path / 'x_val.txt'].splitlines()
    assert len(lines) == 6
    for line in lines:  # names may hold spaces, the label is the last word
        name, label = line.rsplit(' ', 1)
        assert (root / name).is_file() and Path(name).parts[0] == found.classes[int(label)]


def test_classes_that_differ_are_refused(tmp_path: Path) -> None:
    root = sets.write_class_folders(tmp_path / 'd', 6, 3)
    (root / 'val/blau').rename(root / 'val/Blau')
    with pytest.raises(UserError, match="val and train differ in the class 'Blau'"):
        survey_class_folders(root, tmp_path / 'x.py')


def test_one_class_is_none(tmp_path: Path) -> None:
    (tmp_path / 'a').mkdir()
    with pytest.raises(UserError, match='0 folders with pictures, expected at least two'):
        survey_class_folders(tmp_path, tmp_path / 'x.py')
