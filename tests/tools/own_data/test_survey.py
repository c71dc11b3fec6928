"""Splits by name, kinds of pictures, and what is told of them."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdcn.errors import UserError
from tools.own_data import survey


@pytest.mark.parametrize(('path', 'split'), [
    ('annotations/instances_train2017.json', 'train'), ('labels/_annotations.valid.json', 'val'),
    ('train/_annotations.coco.json', 'train'), ('a/validation', 'val'), ('Training', 'train'),
    ('test/x.json', 'test'), ('all.json', None), ('trainer.json', None), ('val/train', 'train')])
def test_names_tell_the_split(path: str, split: str | None) -> None:
    assert survey.split_of(Path('root', path), Path('root')) == split


def test_folders_are_found_shallow_ones_first(tmp_path: Path) -> None:
    for name in ('b/c', 'a', '.hidden/x'):
        (tmp_path / name).mkdir(parents=True)
    assert [str(path.relative_to(tmp_path)) for path in survey.folders_of(tmp_path)] == [
        '.', 'a', 'b', 'b/c']


def test_validation_may_be_called_test_and_training_must_be_there() -> None:
    root = Path('root')
    assert survey.choose_splits({'train': 1, 'test': 2}, 'x', root) == {'train': 1, 'val': 2}
    assert survey.choose_splits({'train': 1, 'test': 2, 'val': 3}, 'x', root)['val'] == 3
    assert survey.choose_splits({None: 1}, 'x', root) == {'train': 1, 'val': None}
    with pytest.raises(UserError, match='root has x of val, test'):
        survey.choose_splits({'val': 1, 'test': 2}, 'x', root)


def test_every_tenth_validates() -> None:
    train, val = survey.every_tenth(25)
    assert val == [0, 10, 20] and sorted(train + val) == list(range(25))
    with pytest.raises(UserError, match='got 1 pictures, expected at least two'):
        survey.every_tenth(1)


def pictures(folder: Path) -> dict[str, Path]:
    """One picture of each kind that people have."""
    colours = Image.fromarray(np.full((20, 30, 3), 90, np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds = {'grey.png': colours.convert('L'), 'RGBA.png': colours.convert('RGBA'),
             'CMYK.jpg': colours.convert('CMYK'), 'palette.png': colours.convert('P'),
             '16-bit.png': Image.fromarray(np.full((20, 30), 3000, np.uint16)),
             'RGB turned by EXIF.jpg': colours, 'RGB.jpg': colours}
    for name, picture in kinds.items():
        picture.save(folder / name, **(dict(exif=turned) if 'EXIF' in name else {}))
    return {Path(name).stem: folder / name for name in kinds}


@pytest.mark.parametrize('kind', ['grey', 'RGBA', 'CMYK', 'palette', '16-bit',
                                  'RGB turned by EXIF'])
def test_kinds_of_pictures_are_told(kind: str, tmp_path: Path) -> None:
    files = pictures(tmp_path)
    size, kinds = survey.look_at([files[kind], files['RGB']])
    assert size == '30x20 to 30x20 px, half of them up to 30x20'
    assert f'1 {kind}' in kinds and '1 RGB' in kinds
    assert len(survey.look_at([files['RGB']])) == 1


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / 'a.jpg').write_bytes(b'no picture')
    with pytest.raises(UserError, match=r'a\.jpg cannot be read'):
        survey.look_at([tmp_path / 'a.jpg'])


def test_names_of_a_list(tmp_path: Path) -> None:
    assert survey.names_of_list(tmp_path) is None
    (tmp_path / 'labels.txt').write_text('\ufeffgröße 1\n\nzwei\n', encoding='utf-8')
    assert survey.names_of_list(tmp_path) == ['größe 1', 'zwei']
    with pytest.raises(UserError, match="two classes called 'a'"):
        survey.check_names(['a', 'b', 'a'], 'x')


def test_a_description_has_every_class_and_note(tmp_path: Path) -> None:
    files = list(pictures(tmp_path).values())
    split = survey.Split(files, {'a': 3}, {}, empty=2)
    lines = survey.describe(survey.Survey(tmp_path, ['a', 'bb'], 'objects',
                                          {'train': split, 'val': split}, ['mind this']))
    assert lines[1].split() == ['a', '3', '3'] and lines[2].split() == ['bb', '0', '0']
    assert 'train: 7 pictures, 2 of them without objects' in lines and lines[-1] == 'mind this'
