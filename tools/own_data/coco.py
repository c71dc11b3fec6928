"""Detection data: files in COCO's format wherever they lie, and the pictures that they name."""
from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from mmdcn.errors import UserError
from tools.own_data import survey
from tools.own_data.survey import Split, Survey

_LISTS = ('images', 'annotations', 'categories')
_PROBE = 200  # pictures that are looked for to find their folder
_SHOWN = 6


def survey_coco(root: Path, beside: Path, with_masks: bool) -> Survey:
    """Find annotations and pictures of a detection set.

    Args:
        root: The folder to search.
        beside: Where lists of a split made here go: ``NAME_train.json`` beside this path.
        with_masks: Whether masks are needed.

    Raises:
        UserError: There are no annotations, no pictures, no masks, or more than can be chosen from.
    """
    contents = _read_all(root)
    found = survey.choose_splits(_by_split(contents, root), 'annotations', root)
    notes, texts = [], {}
    train = contents[found['train']]
    classes = _classes(train, list(contents.values()), notes)
    survey.check_names(classes, str(found['train']))
    parts = {'train': (found['train'], train)}
    if found['val'] is not None:
        parts['val'] = (found['val'], contents[found['val']])
    else:
        parts = _divide(found['train'], train, beside)
        texts = {path: json.dumps(content) for path, content in parts.values()}
        notes.append(f'{found["train"].name} is not split: every {survey.VAL_EVERY}th picture '
                     f'validates; the two lists are {", ".join(path.name for path in texts)}')
    splits = {name: _split(path, content, root, classes, notes)
              for name, (path, content) in parts.items()}
    if with_masks:
        _require_masks(train, found['train'])
    return Survey(root, classes, 'objects', splits, notes, texts)


def _read_all(root: Path) -> dict[Path, dict[str, Any]]:
    """Every file in COCO's format, by path."""
    contents, others = {}, []
    for folder in survey.folders_of(root):
        for path in sorted(folder.glob('*.json')):
            try:
                content = json.loads(path.read_text(encoding='utf-8-sig'))
            except (OSError, ValueError):
                others.append(path.name)
                continue
            if isinstance(content, dict) and all(
                    isinstance(content.get(key), list) for key in _LISTS):
                contents[path] = content
            else:
                others.append(path.name)
    if not contents:
        raise UserError('data', f'{root} has no annotations'
                        + (f' ({", ".join(others[:5])} are of another form)' if others else ''),
                        "JSON files in COCO's format, with images, annotations and categories")
    return contents


def _by_split(contents: dict[Path, Any], root: Path) -> dict[str | None, Path]:
    """One file for each split; of several that with ``instances`` in its name."""
    named = defaultdict(list)
    for path in contents:
        named[survey.split_of(path, root)].append(path)
    found = {}
    for split, paths in named.items():
        best = [path for path in paths if 'instances' in path.name] or paths
        if len(best) > 1:
            raise UserError('data', f'{root} has several annotations of {split or "no split"}: '
                            f'{", ".join(str(path.relative_to(root)) for path in best[:5])}',
                            'one for training and one for validation',
                            'move the others away, or name the folder of one set')
        found[split] = best[0]
    return found


def _classes(content: dict[str, Any], others: list[dict[str, Any]], notes: list[str]) -> list[str]:
    """Names of the categories in the order of the file, without an unused root of all others."""
    used = {entry.get('category_id') for one in others for entry in one['annotations']}
    above = {entry.get('supercategory') for entry in content['categories']}
    names = []
    for entry in content['categories']:
        name = str(entry.get('name', entry.get('id')))
        if entry.get('id') in used or name not in above:
            names.append(name)
        else:
            notes.append(f'category {name!r} has no object and is above others: left out')
    if not names:
        raise UserError('data', 'got no categories', 'at least one')
    return names


def _divide(path: Path, content: dict[str, Any],
            beside: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Two files of one: every tenth picture, by name, validates."""
    images = sorted(content['images'], key=lambda entry: str(entry.get('file_name')))
    parts = {}
    for name, indices in zip(('train', 'val'), survey.every_tenth(len(images)), strict=True):
        chosen = [images[index] for index in indices]
        ids = {entry.get('id') for entry in chosen}
        parts[name] = (beside.with_name(f'{beside.stem}_{name}.json'), dict(
            content, images=chosen, annotations=[
                entry for entry in content['annotations'] if entry.get('image_id') in ids]))
    return parts


def _split(path: Path, content: dict[str, Any], root: Path, classes: list[str],
           notes: list[str]) -> Split:
    names = {entry.get('id'): str(entry.get('name')) for entry in content['categories']}
    if missing := [name for name in names.values() if name not in classes
                   and any(names.get(entry.get('category_id')) == name
                           for entry in content['annotations'])]:
        raise UserError('data', f'{path.name} has objects of {missing[0]!r}',
                        f'the classes of training ({", ".join(classes[:10])})',
                        'give both files the same categories')
    files = [str(entry.get('file_name', '')).replace('\\', '/') for entry in content['images']]
    folder = _find_folder(files, root, path)
    by_image = defaultdict(list)
    for entry in content['annotations']:
        by_image[entry.get('image_id')].append(entry)
    if plain := sum('iscrowd' not in entry or 'area' not in entry
                    for entry in content['annotations']):
        notes.append(f'{path.name}: {plain} objects without iscrowd or area, which are filled in '
                     'as they are read')
    shown = [(folder / name, [(names.get(o.get('category_id'), '?'), o)
                              for o in by_image[entry.get('id')]])
             for name, entry in zip(files, content['images'], strict=True)
             if by_image[entry.get('id')]]
    place = folder.relative_to(root)
    return Split(
        [folder / name for name in files],
        dict(Counter(names.get(entry.get('category_id'), '?')
                     for entry in content['annotations'])),
        dict(ann_file=str(path.relative_to(root)) if path.is_relative_to(root) else str(path),
             data_prefix=dict(img='' if place == Path() else f'{place}/')),
        sum(not by_image[entry.get('id')] for entry in content['images']),
        shown[::max(1, len(shown) // _SHOWN)][:_SHOWN])


def _find_folder(files: list[str], root: Path, source: Path) -> Path:
    """The folder in which most of the pictures lie that a file names."""
    if not files:
        raise UserError('data', f'{source.name} names no pictures', 'at least one')
    probe = files[::max(1, len(files) // _PROBE)]
    best, hits = root, 0
    for folder in survey.folders_of(root):
        count = sum((folder / name).is_file() for name in probe)
        if count > hits:
            best, hits = folder, count
    if not hits:
        raise UserError('data', f'{files[0]}, which {source.name} names, lies nowhere below {root}',
                        'the pictures below the same folder', 'put them there, or a link to them')
    missing = [name for name in files if not (best / name).is_file()]
    if missing:
        raise UserError('data', f'{len(missing)} of {len(files)} pictures that {source.name} names '
                        f'are absent, the first is {missing[0]}', f'all of them in {best}',
                        'put them there, or take them out of the annotations')
    return best


def _require_masks(content: dict[str, Any], path: Path) -> None:
    without = sum(not entry.get('segmentation') for entry in content['annotations'])
    if content['annotations'] and without == len(content['annotations']):
        raise UserError('base', f'it predicts masks, and {path.name} has boxes only',
                        'a detector of boxes',
                        'start from a config of DINO, or of Faster or Cascade R-CNN')
