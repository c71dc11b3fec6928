"""COCO annotations: what can be mended is mended in memory, the rest is refused by name.

Works on the parsed content of an annotation file; the file itself is never written.
"""
from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mmdcn.data.checks import shorten
from mmdcn.errors import UserError, suggest

_SHOWN = 5
_ROUNDING = 2.0  # pixels
_MARKS = (b'\xef\xbb\xbf', b'\xff\xfe', b'\xfe\xff')


class Notes:
    """What was mended in one annotation file, or is odd.

    Args:
        file: Name of the annotation file.

    Attributes:
        lines: What was noted.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: list[str] = []

    def add(self, what: str, names: Sequence[str] = ()) -> None:
        """Note a repair, and how many annotations or images it touched and the first of them."""
        self.lines.append(what + (f': {len(names)}, the first {names[0]}' if names else ''))


def refuse(file: str, faults: Iterable[tuple[str, str]], expected: str, remedy: str) -> None:
    """Raise an error that names the first of some faults, and tells the next ones.

    Args:
        file: Name of the annotation file.
        faults: What is faulty and what it is; nothing is raised where there is none.
        expected: What the first should be.
        remedy: What to do.

    Raises:
        UserError: There is a fault.
    """
    faults = list(faults)
    if not faults:
        return
    (name, got), others = faults[0], faults[1:_SHOWN]
    lines = [f'  so is {other}: got {found}' for other, found in others]
    if len(faults) > _SHOWN:
        lines.append(f'  and {len(faults) - _SHOWN} more')
    raise UserError(f'{file}: {name}', f'got {got}', expected, remedy, '\n'.join(lines))


def annotation_name(annotation: dict[str, Any]) -> str:
    """How messages call an annotation, by the id that its file gives it."""
    number = annotation.get('id_in_file', annotation.get('id'))
    return f'annotation id {number!r} of image id {annotation.get("image_id")!r}'


def image_name(image: dict[str, Any]) -> str:
    """How messages call an image."""
    return f'image id {image.get("id")!r} ({image.get("file_name")})'


def read_annotations(path: str, notes: Notes) -> dict[str, Any]:
    """Read an annotation file in any encoding that JSON may have, with or without a mark.

    Args:
        path: File to read.
        notes: Takes down what was mended; knows the name for messages.

    Returns:
        Its content with the lists ``images``, ``annotations`` and ``categories``.

    Raises:
        UserError: It is no JSON, or not in COCO's format.
    """
    data = Path(path).read_bytes()
    if data.startswith(_MARKS):
        notes.add('the byte-order mark at its beginning was skipped')
    try:
        content = json.loads(data)
    except ValueError as error:
        raise UserError(f'annotation file {notes.file}', f'not JSON ({error})',
                        'annotations in the format of COCO',
                        'is the file whole? Export it or get it anew') from error
    if not isinstance(content, dict):
        raise UserError(f'annotation file {notes.file}', f'got a {type(content).__name__}',
                        "a dictionary with 'images', 'annotations' and 'categories'",
                        'give the annotations, not results')
    content.setdefault('annotations', [])  # files of test pictures have none
    for key in ('images', 'annotations', 'categories'):
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            got = f'{key!r} is no list of dictionaries' if key in content else f'it lacks {key!r}'
            raise UserError(f'annotation file {notes.file}', got, 'the format of COCO',
                            'export the annotations anew, as "COCO" of object detection')
    return content


def mend_images(content: dict[str, Any], notes: Notes, folder: str | None) -> None:
    """Check ids and file names of the images; turn the backslashes of Windows.

    Args:
        content: Parsed annotation file; changed in place.
        notes: Takes down what was mended.
        folder: Where the pictures are, if it is known.

    Raises:
        UserError: A file name is absent, or an id is absent or not unique.
    """
    images = content['images']
    refuse(notes.file, ((image_name(image), f'file_name {image.get("file_name")!r}')
                        for image in images
                        if not isinstance(image.get('file_name'), str) or not image['file_name']),
           'the name of its picture', 'write it into the file')
    _check_ids(images, 'image', image_name, notes.file)
    turned = [image for image in images if '\\' in image['file_name']
              and not os.path.exists(os.path.join(folder or '', image['file_name']))]
    if turned:
        notes.add('backslashes in file_name were read as slashes', list(map(image_name, turned)))
    for image in turned:
        image['file_name'] = image['file_name'].replace('\\', '/')


def _check_ids(entries: list[dict[str, Any]], kind: str, name: Any, file: str) -> None:
    refuse(file, ((name(entry), f'id {entry.get("id")!r}') for entry in entries
                  if isinstance(entry.get('id'), bool)
                  or not isinstance(entry.get('id'), (int, float, str))),
           'a number', f'give every {kind} an id of its own')
    counts = Counter(entry['id'] for entry in entries)
    if len(counts) == len(entries):
        return
    faults = []
    for number in (number for number, count in counts.items() if count > 1):
        names = [str(entry.get('file_name', entry.get('name'))) for entry in entries
                 if entry['id'] == number]
        faults.append((f'{kind} id {number!r}', f'{counts[number]} of this id: {shorten(names)}'))
    refuse(file, faults, f'one {kind} for each id', f'give every {kind} an id of its own, and its '
           'annotations, too: whose they are cannot be told from here')


def check_references(content: dict[str, Any], file: str) -> None:
    """Every annotation must be of an image and of a category that the file holds.

    Raises:
        UserError: One is not.
    """
    _check_ids(content['categories'], 'category',
               lambda entry: f'category id {entry.get("id")!r}', file)
    refuse(file, ((f'category id {entry["id"]!r}', f'name {entry.get("name")!r}')
                  for entry in content['categories'] if not isinstance(entry.get('name'), str)),
           'a text', 'write the name of the class')
    for key, kind in (('image_id', 'images'), ('category_id', 'categories')):
        known = {entry['id'] for entry in content[kind]}
        try:
            if {entry.get(key) for entry in content['annotations']} <= known:
                continue
        except TypeError:  # a list or dictionary
            pass
        refuse(file, ((annotation_name(entry), f'{key} {entry.get(key)!r}')
                      for entry in content['annotations'] if not _among(entry.get(key), known)),
               f"the id of an entry of '{kind}'",
               f"add the missing entry to '{kind}', or remove the annotation")


def _among(value: Any, known: set[Any]) -> bool:
    try:
        return value in known
    except TypeError:  # a list or dictionary
        return False


def mend_boxes(content: dict[str, Any], notes: Notes) -> np.ndarray:
    """Check that boxes are four finite numbers; take absent ones from their mask.

    Args:
        content: Parsed annotation file; changed in place.
        notes: Takes down what was mended.

    Returns:
        The boxes of all annotations, (number, 4): left, top, width, height in pixels.

    Raises:
        UserError: A box is no box.
    """
    annotations = content['annotations']
    lacking = [entry for entry in annotations if not entry.get('bbox')]
    drawn = []
    for entry in lacking:
        box = _box_of_mask(entry.get('segmentation'))
        if box is not None:
            entry['bbox'] = box
            drawn.append(annotation_name(entry))
    if drawn:
        notes.add('absent bbox was taken from segmentation', drawn)
    try:
        boxes = np.array([entry.get('bbox') for entry in annotations])
        fine = boxes.shape == (len(annotations), 4) and boxes.dtype.kind in 'iuf'
    except ValueError:  # of unequal length
        fine = False
    if not annotations:
        return np.zeros((0, 4))
    wrong = np.array([not _is_box(entry.get('bbox')) for entry in annotations]) if not fine else \
        ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1)
    refuse(notes.file, ((annotation_name(annotations[i]), f'bbox {annotations[i].get("bbox")!r}')
                        for i in np.flatnonzero(wrong)),
           'four finite numbers: left, top, width and height in pixels, these two not negative',
           'correct the box, or remove the annotation')
    return boxes.astype(np.float64)


def _is_box(box: Any) -> bool:
    return isinstance(box, (list, tuple)) and len(box) == 4 and \
        all(isinstance(value, (int, float)) for value in box) and \
        bool(np.isfinite(box).all()) and min(box[2:]) >= 0


def check_within(content: dict[str, Any], boxes: np.ndarray, notes: Notes) -> list[int]:
    """Positions of the annotations whose box lies wholly outside its picture.

    Boxes of less than one pixel are not looked at, as training leaves them out; that is noted, and
    what reaches beyond its picture by more than rounding explains.

    Args:
        content: Parsed annotation file.
        boxes: As :func:`mend_boxes` returns them.
        notes: Takes down what is odd.
    """
    images, annotations = content['images'], content['annotations']
    sizes = np.array([(image.get('width'), image.get('height')) for image in images], np.float64)
    places = {image['id']: place for place, image in enumerate(images)}
    limits = sizes.reshape(-1, 2)[[places[entry['image_id']] for entry in annotations]]
    thin = (boxes[:, 2:] < 1).any(axis=1)
    if thin.any():
        notes.add('boxes less than a pixel wide or high are left out of training',
                  [annotation_name(annotations[i]) for i in np.flatnonzero(thin)])
    beyond = (boxes[:, :2] + boxes[:, 2:] > limits + _ROUNDING).any(axis=1)
    if beyond.any():
        notes.add('boxes reach beyond their picture (a bbox is [left, top, width, height])',
                  [annotation_name(annotations[i]) for i in np.flatnonzero(beyond)])
    outside = (boxes[:, :2] >= limits).any(axis=1) | (boxes[:, :2] + boxes[:, 2:] <= 0).any(axis=1)
    return np.flatnonzero(outside & ~thin).tolist()


def mend_areas_and_crowds(content: dict[str, Any], boxes: np.ndarray, notes: Notes) -> None:
    """Fill in ``iscrowd`` and ``area``, without which evaluation or training fails.

    An area is taken from the mask, else from the box.

    Raises:
        UserError: ``iscrowd`` is neither 0 nor 1.
    """
    annotations = content['annotations']
    lacking = [entry for entry in annotations if entry.get('iscrowd') not in (0, 1)]
    refuse(notes.file, ((annotation_name(entry), f'iscrowd {entry["iscrowd"]!r}')
                        for entry in lacking if entry.get('iscrowd') not in (None, '', '0', '1')),
           '0 or 1', 'correct it')
    for entry in lacking:
        entry['iscrowd'] = int(entry.get('iscrowd') or 0)
    if lacking:
        notes.add('absent iscrowd was taken as 0', list(map(annotation_name, lacking)))
    areas = np.array([entry.get('area') if isinstance(entry.get('area'), (int, float)) else np.nan
                      for entry in annotations])
    # An area of 0 would have training leave the object out without a word.
    absent = ~np.isfinite(areas) | (areas <= 0) & (boxes[:, 2:] >= 1).all(axis=1)
    for place in np.flatnonzero(absent):
        entry = annotations[place]
        entry['area'] = _area_of_mask(entry.get('segmentation')) or float(boxes[place, 2:].prod())
    if absent.any():
        notes.add('area that is absent or 0 was taken from segmentation, else from bbox',
                  [annotation_name(annotations[place]) for place in np.flatnonzero(absent)])


def mend_ids(content: dict[str, Any], notes: Notes) -> None:
    """Number annotations anew where ids are 0, absent, no numbers, or not unique.

    The evaluator of COCO takes a match with id 0 for none. The old id stays for messages.
    """
    annotations = content['annotations']
    ids = [entry.get('id') for entry in annotations]
    if all(type(number) is int and number for number in ids) and len(set(ids)) == len(ids):
        return
    seen: set[Any] = set()
    names = []
    for entry in annotations:
        number = entry.get('id')
        if type(number) is not int or not number or number in seen:
            names.append(annotation_name(entry))
        else:
            seen.add(number)
    notes.add('annotation ids were numbered anew, as some are 0, absent or not unique', names)
    for position, entry in enumerate(annotations, 1):
        entry['id_in_file'] = entry.get('id')
        entry['id'] = position


def category_ids(content: dict[str, Any], classes: Sequence[str], notes: Notes) -> list[Any]:
    """Ids of the categories of some classes, in the order of the classes.

    Of categories of one name only one may be in use; export tools write a root category that can
    have the name of a class.

    Args:
        content: Parsed annotation file.
        classes: Names as the data set has them.
        notes: Takes down whose annotations are left out.

    Raises:
        UserError: A class is not in the file, or stands for several categories.
    """
    file, categories = notes.file, content['categories']
    remedy = 'set metainfo=dict(classes=(...)) of the data set to names of the file'
    if isinstance(classes, str):
        raise UserError('metainfo.classes', f'got the text {classes!r}', 'a list of names',
                        f'write classes=({classes!r}, )')
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise UserError('metainfo.classes', f'got {shorten(twice)} more than once',
                        'every name once', 'remove the repetition')
    known = [entry['name'] for entry in categories]
    absent = [name for name in classes if name not in known]
    if absent:
        hints = [f'  {name}: {hint}' for name in absent[:_SHOWN] if (hint := suggest(name, known))]
        raise UserError('metainfo.classes', f'got {shorten(absent)}',
                        f'names that {file} holds: {shorten(known)}', remedy, '\n'.join(hints))
    counts = Counter(entry['category_id'] for entry in content['annotations'])
    found = {name: _one_of(name, categories, counts, file) for name in classes}
    rest = [entry for entry in categories if entry['id'] not in set(found.values())]
    if rest:
        notes.add('categories that metainfo.classes does not name are left out: ' + shorten(
            [f'{entry["name"]} ({counts[entry["id"]]} annotations)' for entry in rest]))
    return list(found.values())


def _one_of(name: str, categories: list[dict[str, Any]], counts: Counter, file: str) -> Any:
    """Id of the category of a name; of several, of the one in use or beside the root."""
    named = [entry for entry in categories if entry['name'] == name]
    if len(named) > 1:
        named = [entry for entry in named if counts[entry['id']]] or \
            [entry for entry in named if entry.get('supercategory') == name]
    if len(named) != 1:
        ids = [entry['id'] for entry in categories if entry['name'] == name]
        raise UserError(f'{file}: category {name!r}', f'got the ids {shorten(ids)} for it',
                        'one category of each name', 'join them in the file, or give them '
                        'different names')
    return named[0]['id']


def _area_of_mask(mask: Any) -> float:
    """Area in square pixels of polygons or of a run-length code; 0 where it is neither."""
    try:
        if isinstance(mask, dict):
            counts = mask['counts']
            return float(sum(counts[1::2]) if isinstance(counts, list) else rle.area(mask))
        area = 0.0
        for polygon in mask or ():
            x, y = np.array(polygon, np.float64).reshape(-1, 2).T
            area += abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
        return area if np.isfinite(area) else 0.0
    except (KeyError, TypeError, ValueError):
        return 0.0


def _box_of_mask(mask: Any) -> list[float] | None:
    """Box around polygons or a run-length code, or None where it is neither."""
    try:
        if isinstance(mask, dict):
            if isinstance(mask['counts'], list):
                mask = rle.frPyObjects(mask, *mask['size'])
            return rle.toBbox(mask).tolist()
        points = np.concatenate([np.array(polygon, np.float64).reshape(-1, 2)
                                 for polygon in mask or ()])
        left, top = points.min(axis=0).tolist()
        right, bottom = points.max(axis=0).tolist()
        return [left, top, right - left, bottom - top]
    except (KeyError, TypeError, ValueError):
        return None
