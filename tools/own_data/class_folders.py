"""Classification data: a folder for each class."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

from mmdcn.errors import UserError
from tools.own_data import survey
from tools.own_data.survey import Split, Survey

_SHOWN = 6


def survey_class_folders(root: Path, beside: Path) -> Survey:
    """Find the classes: ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg``, or ``CLASS/*.jpg`` alone.

    Args:
        root: The folder to search.
        beside: Where lists of a split made here go: ``NAME_train.txt`` beside this path.

    Raises:
        UserError: There are no class folders, or those of validation differ.
    """
    below = [path for path in sorted(root.iterdir()) if path.is_dir()
             and not path.name.startswith('.')]
    named = {survey.split_of(path, root): path for path in below}
    if 'train' in named:
        found = survey.choose_splits(named, 'class folders', root)
    else:
        found = {'train': root, 'val': None}
    classes = _class_names(found['train'])
    if found['val'] is None:
        return _divided(root, found['train'], classes, beside)
    if (others := _class_names(found['val'])) != classes:
        odd = sorted(set(others) ^ set(classes))
        raise UserError('data', f'{found["val"].name} and {found["train"].name} differ in the '
                        f'class {odd[0]!r}', 'the same folders in both',
                        'add or remove the folder')
    splits = {}
    for name, folder in found.items():
        files = [path for one in classes for path in _files(folder / one)]
        splits[name] = _split(files, folder, dict(data_prefix=str(folder.relative_to(root))))
    return Survey(root, classes, 'pictures', splits)


def _class_names(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir()
                   if path.is_dir() and not path.name.startswith('.') and _files(path))
    if len(names) < 2:
        raise UserError('data', f'{folder} has {len(names)} folders with pictures',
                        'at least two, one for each class')
    return names


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for one in survey.folders_of(folder) for path in survey.pictures_of(one)]


def _split(files: list[Path], folder: Path, dataset: dict) -> Split:
    counts = Counter(path.relative_to(folder).parts[0] for path in files)
    return Split(files, dict(counts), dataset, shown=[
        (path, path.relative_to(folder).parts[0])
        for path in files[::max(1, len(files) // _SHOWN)][:_SHOWN]])


def _divided(root: Path, folder: Path, classes: list[str], beside: Path) -> Survey:
    """Every tenth picture of each class validates; the two parts are lists."""
    parts: dict[str, list[Path]] = {'train': [], 'val': []}
    for one in classes:
        files = _files(folder / one)
        for name, indices in zip(parts, survey.every_tenth(len(files)), strict=True):
            parts[name] += [files[index] for index in indices]
    texts, splits = {}, {}
    for name, files in parts.items():
        path = beside.with_name(f'{beside.stem}_{name}.txt')
        texts[path] = ''.join(
            f'{file.relative_to(folder)} {classes.index(file.relative_to(folder).parts[0])}\n'
            for file in files)
        splits[name] = _split(files, folder, dict(
            ann_file=str(path.resolve()), data_prefix=str(folder.relative_to(root)).strip('.')))
    note = (f'{folder} is not split: every {survey.VAL_EVERY}th picture of a class validates; the '
            f'two lists are {", ".join(path.name for path in texts)}')
    return Survey(root, classes, 'pictures', splits, [note], texts)
