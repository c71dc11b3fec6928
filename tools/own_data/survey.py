"""What the kinds of data sets have in common: splits, pictures, and what was found in them."""
from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmdcn.apis.inference import SUFFIXES
from mmdcn.errors import UserError

WORDS = {'train': ('train', 'training', 'trainval'),
         'val': ('val', 'valid', 'validation', 'eval'), 'test': ('test', 'testing')}
VAL_EVERY = 10  # of a set that is not split, every tenth picture in the order of names
LOOK_AT = 300   # pictures of a split whose headers are read
DEPTH = 4
_ROTATED = {5, 6, 7, 8}
_EXIF_ORIENTATION = 0x0112


@dataclass
class Split:
    """The pictures of training or of validation.

    Attributes:
        files: The pictures, in the order of the set.
        counts: Objects, pixels or pictures by class.
        empty: Pictures without any object; None where there is no such thing.
        dataset: Keys of the data set in the config that say where the split lies.
        shown: For the overview: pictures with what is annotated on them.
    """

    files: list[Path]
    counts: dict[str, int]
    dataset: dict[str, Any]
    empty: int | None = None
    shown: list[Any] = field(default_factory=list)


@dataclass
class Survey:
    """What was found in a folder.

    Attributes:
        root: The folder.
        classes: Names in the order of their labels.
        unit: What ``counts`` counts.
        splits: ``train`` and ``val``.
        notes: What a user should know.
        texts: Files to write beside the config: lists of a split that was made here.
    """

    root: Path
    classes: list[str]
    unit: str
    splits: dict[str, Split]
    notes: list[str] = field(default_factory=list)
    texts: dict[Path, str] = field(default_factory=dict)


def split_of(path: Path, root: Path) -> str | None:
    """The split that the name of a file or folder tells, or else the nearest folder above it."""
    parts = path.relative_to(root).parts
    for part in (Path(parts[-1]).stem, *reversed(parts[:-1])) if parts else ():
        words = re.split(r'[^a-z]+', part.lower())
        for split, names in WORDS.items():
            if any(word in names for word in words):
                return split
    return None


def folders_of(root: Path) -> list[Path]:
    """The folder and those below it, hidden ones left out, shallow ones first."""
    found = [root]
    for here, folders, _ in os.walk(root, followlinks=True):
        depth = len(Path(here).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if not name.startswith('.')
                            ) if depth < DEPTH else []
        found += [Path(here, name) for name in folders]
    return sorted(found, key=lambda path: (len(path.parts), path))


def pictures_of(folder: Path) -> list[Path]:
    """Pictures that lie in a folder itself, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES
                  and not path.name.startswith('.'))


def choose_splits(found: dict[str | None, Any], what: str, root: Path) -> dict[str, Any]:
    """Training and validation among what was found, by split; what has none is to be split.

    Raises:
        UserError: There is no training part.
    """
    if 'train' in found:
        rest = next((found[name] for name in ('val', 'test') if name in found), None)
        return {'train': found['train'], 'val': rest}
    if len(found) == 1:
        return {'train': next(iter(found.values())), 'val': None}
    raise UserError('data', f'{root} has {what} of {", ".join(map(str, found)) or "no split"}',
                    'a name with "train" for the training part, "val" for the validation part',
                    'rename them')


def every_tenth(number: int) -> tuple[list[int], list[int]]:
    """Indices of training and validation of a set that is not split.

    Raises:
        UserError: Two pictures are needed.
    """
    if number < 2:
        raise UserError('data', f'got {number} pictures', 'at least two, to train and to validate')
    val = list(range(0, number, VAL_EVERY))
    return sorted(set(range(number)) - set(val)), val


def describe(survey: Survey) -> list[str]:
    """Lines that say what was found."""
    lines = [f'{survey.root}: {len(survey.classes)} classes, {survey.unit} in train and val']
    width = max(map(len, survey.classes))
    for name in survey.classes:
        counts = [split.counts.get(name, 0) for split in survey.splits.values()]
        lines.append(f'  {name:<{width}}' + ''.join(f'{count:>12}' for count in counts))
    for name, split in survey.splits.items():
        line = f'{name}: {len(split.files)} pictures'
        if split.empty is not None:
            line += f', {split.empty} of them without objects'
        lines += [line, *(f'  {text}' for text in look_at(split.files))]
    return lines + survey.notes


def look_at(files: Sequence[Path]) -> list[str]:
    """Sizes and kinds of pictures, from the headers of some of them.

    Raises:
        UserError: One cannot be read.
    """
    step = max(1, len(files) // LOOK_AT)
    sizes, kinds = [], {}
    for path in files[::step]:
        try:
            with Image.open(path) as picture:
                sizes.append(picture.size)
                kind = _kind(picture)
        except OSError as error:
            raise UserError('picture', f'{path} cannot be read ({error})', 'a whole picture',
                            'mend or remove it') from error
        kinds[kind] = kinds.get(kind, 0) + 1
    width, height = np.array(sizes).T
    seen = '' if step == 1 else f' (of {len(sizes)} looked at)'
    lines = [f'{width.min()}x{height.min()} to {width.max()}x{height.max()} px, half of them up to '
             f'{int(np.median(width))}x{int(np.median(height))}{seen}']
    if set(kinds) != {'RGB'}:
        lines.append('kinds: ' + ', '.join(f'{count} {kind}' for kind, count in kinds.items())
                     + '; all are read as 8-bit colours')
    return lines


def _kind(picture: Image.Image) -> str:
    kind = {'L': 'grey', '1': 'black and white', 'P': 'palette', 'I;16': '16-bit',
            'I;16B': '16-bit', 'I': '16-bit'}.get(picture.mode, picture.mode)
    turned = picture.getexif().get(_EXIF_ORIENTATION) in _ROTATED
    return f'{kind} turned by EXIF' if turned else kind


def names_of_list(folder: Path) -> list[str] | None:
    """Class names from ``classes.txt``, ``labels.txt``, ... of a folder: one in a line."""
    for name in ('classes.txt', 'labels.txt', 'class_names.txt', 'names.txt'):
        if (path := folder / name).is_file():
            lines = path.read_text(encoding='utf-8-sig').splitlines()
            return [line.strip() for line in lines if line.strip()]
    return None


def check_names(names: Iterable[str], where: str) -> None:
    """Raise UserError where two classes have one name."""
    names = list(names)
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise UserError('data', f'{where} has two classes called {doubles[0]!r}',
                        'another name for each class', 'rename one')
