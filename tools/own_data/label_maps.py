"""Segmentation data: pictures, and a label map of the same name for each."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mmdcn.errors import UserError
from tools.own_data import survey
from tools.own_data.survey import Split, Survey

IGNORED = 255
_WORDS = ('ann', 'label', 'mask', 'gt', 'seg', 'annotation', 'annotations', 'labels', 'masks')
_SHOWN = 6
_READ = 2000  # label maps of a split that are read


def survey_label_maps(root: Path, beside: Path) -> Survey:
    """Find pictures and label maps, split by the names of their folders.

    Args:
        root: The folder to search.
        beside: Where lists of a split made here go: ``NAME_train.txt`` beside this path.

    Raises:
        UserError: There are none, they do not belong together, or label maps are no label maps.
    """
    pairs = _find_pairs(root)
    found = survey.choose_splits({survey.split_of(images, root) or survey.split_of(maps, root):
                                  (images, maps) for images, maps in pairs}, 'label maps', root)
    notes, texts, splits, values = [], {}, {}, {}
    for name, pair in found.items():
        if pair is not None:
            splits[name], values[name] = _split(*pair, root)
    if found['val'] is None:
        splits, texts = _divide(splits['train'], *found['train'], root, beside)
        notes.append(f'{root} is not split: every {survey.VAL_EVERY}th picture validates; the two '
                     f'lists are {", ".join(path.name for path in texts)}')
    highest = max(label for one in values.values() for label in one if label != IGNORED)
    names = survey.names_of_list(root)
    if names is None:
        names = [f'class_{label}' for label in range(highest + 1)]
        notes.append('class names: there is no classes.txt, so the labels are numbered')
    if highest >= len(names):
        raise UserError('data', f'label maps hold {highest}, and there are names for '
                        f'{len(names)} classes', f'labels from 0 to {len(names) - 1}, and '
                        f'{IGNORED} for what does not count', 'add names to classes.txt')
    survey.check_names(names, str(root))
    if any(IGNORED in one for one in values.values()):
        notes.append(f'label {IGNORED} is not counted')
    for split in splits.values():
        split.counts = {names[int(label)]: count for label, count in split.counts.items()
                        if int(label) != IGNORED}
    return Survey(root, names, 'pixels', splits, notes, texts)


def _find_pairs(root: Path) -> list[tuple[Path, Path]]:
    """(pictures, label maps): folders whose files have the same names."""
    folders = {path: survey.pictures_of(path) for path in survey.folders_of(root)}
    folders = {path: files for path, files in folders.items() if files}
    maps = {path for path in folders if any(word in _words(path, root) for word in _WORDS)}
    pairs = []
    for place in sorted(maps):
        here = survey.split_of(place, root)
        partners = [path for path in folders if path not in maps
                    and survey.split_of(path, root) in (here, None)
                    and _suffix(folders[path], folders[place]) is not None]
        if partners:
            pairs.append((max(partners, key=lambda path: len(folders[path])), place))
    if not pairs:
        raise UserError('data', f'{root} has no folders of pictures and label maps whose files '
                        'have the same names', 'such as images/train/a.jpg and labels/train/a.png',
                        'a folder of label maps has "labels", "masks" or "annotations" in its name')
    return pairs


def _words(path: Path, root: Path) -> list[str]:
    return ['_'.join(path.relative_to(root).parts).lower()] + [
        word for part in path.relative_to(root).parts
        for word in part.lower().replace('-', '_').split('_')]


def _suffix(images: list[Path], maps: list[Path]) -> tuple[str, str] | None:
    """What follows the common name: ``('.jpg', '_mask.png')``; None where names differ."""
    stems = {path.stem for path in images}
    first = maps[0].name
    stem = max((name for name in stems if first.startswith(name)), key=len, default=None)
    if stem is None:
        return None
    ending = first[len(stem):]
    matched = [path for path in maps if path.name.endswith(ending)
               and path.name[:-len(ending)] in stems]
    if 2 * len(matched) < len(maps):
        return None
    return next(path.suffix for path in images if path.stem == stem), ending


def _split(images: Path, maps: Path, root: Path) -> tuple[Split, set[int]]:
    files = survey.pictures_of(images)
    suffix, ending = _suffix(files, survey.pictures_of(maps))
    for path in files:
        if path.suffix != suffix:
            raise UserError('data', f'{images} has pictures that end in {suffix} and in '
                            f'{path.suffix}', 'one ending', 'convert or move the others')
        if not (other := maps / f'{path.stem}{ending}').is_file():
            raise UserError('data', f'{path} has no label map {other}', 'one for each picture',
                            'add it, or move the picture away')
    counts: dict[int, int] = {}
    for path in files[::max(1, len(files) // _READ)]:
        labels, pixels = np.unique(read_labels(maps / f'{path.stem}{ending}'), return_counts=True)
        for label, count in zip(labels.tolist(), pixels.tolist(), strict=True):
            counts[label] = counts.get(label, 0) + count
    shown = [(path, maps / f'{path.stem}{ending}')
             for path in files[::max(1, len(files) // _SHOWN)][:_SHOWN]]
    dataset = dict(img_suffix=suffix, seg_map_suffix=ending, data_prefix=dict(
        img_path=str(images.relative_to(root)), seg_map_path=str(maps.relative_to(root))))
    return Split(files, {str(k): v for k, v in counts.items()}, dataset, shown=shown), set(counts)


def _divide(split: Split, images: Path, maps: Path, root: Path,
            beside: Path) -> tuple[dict[str, Split], dict[Path, str]]:
    splits, texts = {}, {}
    suffix = split.dataset['img_suffix']
    for name, indices in zip(('train', 'val'), survey.every_tenth(len(split.files)), strict=True):
        path = beside.with_name(f'{beside.stem}_{name}.txt')
        files = [split.files[index] for index in indices]
        texts[path] = ''.join(f'{file.name[:-len(suffix)]}\n' for file in files)
        splits[name] = Split(files, dict(split.counts), dict(
            split.dataset, ann_file=str(path.resolve())), shown=split.shown)
    return splits, texts


def read_labels(path: Path) -> np.ndarray:
    """A label map (H, W), integers.

    Raises:
        UserError: It cannot be read, or has colours instead of labels.
    """
    try:
        with Image.open(path) as picture:
            labels = np.asarray(picture)
            mode = picture.mode
    except OSError as error:
        raise UserError('data', f'{path} cannot be read ({error})', 'a whole label map') from error
    if labels.ndim != 2:
        raise UserError('data', f'{path} is a picture in colours ({mode})',
                        'a label map, one number for each pixel: the class, from 0, or 255',
                        'turn colours into class numbers and save them as an 8-bit grey PNG')
    return labels.astype(np.int64)
