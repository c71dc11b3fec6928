"""What the errors of a detector cost: TIDE (Bolya et al., ECCV 2020, arXiv:2008.08115).

Every detection that is no true positive gets one kind of error, every object that none explains is
missed; what a kind costs is the AP50 that would be gained if that kind alone were mended. Figures
are those of the published package ``tidecv`` 1.0.1, its ways with ties and empty classes included.
"""
from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mmdcn.errors import UserError

# In the order in which they are looked for; `miss` is of objects, not of detections.
KINDS = ('loc', 'cls', 'dup', 'bkg', 'both')
FOREGROUND, BACKGROUND, MAX_DETECTIONS = 0.5, 0.1, 100
KEYS = {'bbox': 'bbox', 'segm': 'segmentation'}


@dataclass
class Truth:
    """Objects of a COCO file: classes, and for each image its objects and its crowd regions.

    Attributes:
        categories: Names by id.
        images: Annotations by the id of their image, in the order of the file.
        sizes: (height, width) of the images.
    """

    categories: dict[int, str]
    images: dict[int, list[dict[str, Any]]]
    sizes: dict[int, tuple[int, int]]


@dataclass
class _Outcome:
    """What became of detections and objects.

    Attributes:
        category: Class of each detection, (detections,).
        score: Its score.
        state: 1 for a true positive, 0 for an error, -1 for an error within a crowd.
        kind: Index of its error in :data:`KINDS`; -1 for a true positive.
        target: Number of the object that it would hit if mended; -1 for none.
        object_category: Class of each object, (objects,).
        found: Whether a true positive hit it.
    """

    category: list[int] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    state: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    object_category: list[int] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)


def read_truth(path: str | Path, iou_type: str = 'bbox') -> Truth:
    """Read the annotations of a file in COCO's format.

    Args:
        path: The file.
        iou_type: ``bbox`` or ``segm``: what every object must have.

    Raises:
        UserError: The file is not valid; the message names the first entry that is not.
    """
    content = _read_json(path, 'ann')
    if not isinstance(content, dict):
        raise UserError('ann', f'{path} holds a {type(content).__name__}',
                        "COCO's format, an object of images, annotations and categories")
    for key, needs in {'images': ('id', ), 'categories': ('id', 'name'),
                       'annotations': ('image_id', 'category_id', KEYS[iou_type])}.items():
        if not isinstance(content.get(key), list) or not content[key]:
            raise UserError('ann', f'{path} has no {key}', 'at least one')
        for number, entry in enumerate(content[key]):
            _check_keys(entry, needs, 'ann', f'{path}: {key}[{number}]')
    truth = Truth({entry['id']: entry['name'] for entry in content['categories']},
                  {entry['id']: [] for entry in content['images']},
                  {entry['id']: (entry.get('height', 0), entry.get('width', 0))
                   for entry in content['images']})
    for number, entry in enumerate(content['annotations']):
        _check_entry(entry, truth, iou_type, 'ann', f'{path}: annotations[{number}]')
        truth.images[entry['image_id']].append(entry)
    return truth


def read_predictions(path: str | Path, truth: Truth, iou_type: str = 'bbox',
                     ) -> list[dict[str, Any]]:
    """Read predictions in COCO's result format: a list of image, class, score and box or mask.

    Args:
        path: The file.
        truth: The annotations they belong to.
        iou_type: ``bbox`` or ``segm``: what every prediction must have.

    Raises:
        UserError: The file is not valid; the message names the first prediction that is not.
    """
    content = _read_json(path, 'predictions')
    if not isinstance(content, list):
        raise UserError('predictions', f'{path} holds a {type(content).__name__}',
                        "a list in COCO's result format")
    if not content:
        raise UserError('predictions', f'{path} is an empty list', 'at least one prediction')
    for number, entry in enumerate(content):
        where = f'{path}: [{number}]'
        _check_keys(entry, ('image_id', 'category_id', 'score', KEYS[iou_type]), 'predictions',
                    where)
        if not _is_number(entry['score']):
            raise UserError('predictions', f'{where} has score {entry["score"]!r}', 'a number')
        _check_entry(entry, truth, iou_type, 'predictions', where)
    return content


def analyse_errors(truth: Truth, predictions: Iterable[dict[str, Any]], iou_type: str = 'bbox',
                   progress: Callable[[int, int], None] | None = None) -> dict[str, float]:
    """AP50 and what each kind of error costs.

    Args:
        truth: The annotations.
        predictions: Predictions in COCO's result format; of each image the best 100 count.
        iou_type: ``bbox`` or ``segm``.
        progress: Called after each image with how many are done, of how many.

    Returns:
        ``AP50`` in percent, and in points of AP50: ``cls`` (right place, wrong class; IoU at least
        0.5), ``loc`` (right class, IoU of 0.1 to 0.5), ``both`` (neither right), ``dup`` (a better
        one had the object), ``bkg`` (IoU of at most 0.1 with every object), ``miss`` (objects that
        no error of class or place explains); ``fp`` and ``fn`` are the gain without any false
        positive, and with every object found. They overlap: nothing adds up to 100.

    Raises:
        UserError: There are crowd regions only, or a mask is not valid.
    """
    by_image = defaultdict(list)
    for entry in predictions:
        by_image[entry['image_id']].append(entry)
    outcome = _Outcome()
    for number, (image, entries) in enumerate(truth.images.items(), 1):
        found = sorted(by_image[image], key=lambda entry: -entry['score'])[:MAX_DETECTIONS]
        _match_image(outcome, entries, found, iou_type, truth.sizes[image])
        if progress:
            progress(number, len(truth.images))
    if not outcome.object_category:
        raise UserError('ann', 'got crowd regions only', 'at least one object')
    return _costs(outcome)


def _match_image(outcome: _Outcome, entries: list[dict[str, Any]],
                 found: list[dict[str, Any]], iou_type: str, size: tuple[int, int]) -> None:
    """Add the detections (the best first) and objects of one image."""
    objects = [entry for entry in entries if not entry.get('iscrowd')]
    crowds = [entry for entry in entries if entry.get('iscrowd')]
    first = len(outcome.found)
    outcome.object_category += [entry['category_id'] for entry in objects]
    if not found:
        outcome.found += [False] * len(objects)
        return
    shapes, categories = _shapes(found, iou_type, size), _categories(found)
    state = np.zeros(len(found), int)
    iou = _iou(shapes, _shapes(objects, iou_type, size), crowd=False)
    same = categories[:, None] == _categories(objects)[None]
    hit = _hits(iou * same)
    state[hit >= 0] = 1
    used = np.isin(np.arange(len(objects)), hit)
    for crowd in crowds:
        inside = _iou(shapes, _shapes([crowd], iou_type, size), crowd=True)[:, 0] > FOREGROUND
        state[(state == 0) & inside & (categories == crowd['category_id'])] = -1
    kind, target = _kinds(iou, same, used)
    kind[state == 1] = -1
    target = np.where((target >= 0) & ~np.append(used, True)[target], target + first, -1)
    outcome.category += categories.tolist()
    outcome.score += [float(entry['score']) for entry in found]
    outcome.state += state.tolist()
    outcome.kind += kind.tolist()
    outcome.target += target.tolist()
    outcome.found += used.tolist()


def _hits(iou: np.ndarray) -> np.ndarray:
    """The object that each detection hits, -1 for none: the best detections choose first.

    Args:
        iou: (detections, objects), 0 between different classes.
    """
    hit, free = np.full(len(iou), -1), iou.copy()
    for number in np.flatnonzero((iou >= FOREGROUND).any(1)):
        best = free[number].argmax()
        if free[number, best] >= FOREGROUND:
            hit[number] = best
            free[:, best] = 0
    return hit


def _kinds(iou: np.ndarray, same: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kind of error of each detection if it is one, and the object meant (-1 for none).

    Args:
        iou: (detections, objects).
        same: Whether the classes are the same, (detections, objects).
        used: Whether a true positive hit the object, (objects,).
    """
    if not iou.shape[1]:
        return np.full(len(iou), KINDS.index('bkg')), np.full(len(iou), -1)
    own, other = iou * same, iou * ~same
    place = own.max(1)
    tests = [(place >= BACKGROUND) & (place <= FOREGROUND), other.max(1) >= FOREGROUND,
             (own * used).max(1) >= FOREGROUND, iou.max(1) <= BACKGROUND]
    kind = np.select(tests, range(4), 4)
    target = np.select([kind == 0, kind == 1], [own.argmax(1), other.argmax(1)], -1)
    return kind, target


def _costs(outcome: _Outcome) -> dict[str, float]:
    """AP50, and its change when single kinds of errors are mended."""
    category, score, state, kind, target = (np.array(values) for values in (
        outcome.category, outcome.score, outcome.state, outcome.kind, outcome.target))
    category, score = category.astype(int), score.astype(float)
    objects, found = np.array(outcome.object_category), np.array(outcome.found)
    right = state == 1
    # Of several errors that mean one object only the best can be mended into a true positive.
    best = np.zeros(len(score), bool)
    owner: dict[int, int] = {}
    for number in np.flatnonzero(target >= 0):
        if (rival := owner.get(target[number])) is None or score[number] > score[rival]:
            owner[target[number]] = number
    best[list(owner.values())] = True
    missed = ~found & ~np.isin(np.arange(len(objects)), target)
    base = _mean_ap(category[state >= 0], score[state >= 0], right[state >= 0], objects, objects)

    def gain(mended: np.ndarray, needed: np.ndarray, certain: bool = False) -> float:
        """AP gained where errors are mended and only some objects need finding."""
        turned = mended & best
        kept = turned | ((state == 0) & ~mended)
        classes = category.copy()
        classes[turned] = objects[target[turned]]
        # Errors before true positives: so do ties count in the published package.
        order = np.concatenate([np.flatnonzero(kept), np.flatnonzero(right)])
        correct = (turned | right)[order]
        return _mean_ap(classes[order], correct.astype(float) if certain else score[order],
                        correct, objects[needed], objects) - base

    nothing, every = np.zeros(len(score), bool), np.ones(len(objects), bool)
    mended = {name: max(gain(kind == index, every), 0.0) for index, name in enumerate(KINDS)}
    return {'AP50': base, **{name: mended[name] for name in ('cls', 'loc', 'both', 'dup', 'bkg')},
            'miss': max(gain(nothing, ~missed), 0.0), 'fp': gain(nothing, every, certain=True),
            'fn': gain(nothing, found)}


def _mean_ap(category: np.ndarray, score: np.ndarray, correct: np.ndarray,
             objects: np.ndarray, known: np.ndarray) -> float:
    """Mean AP in percent; a class that is predicted without any object counts with 0.

    Args:
        category: Class of each detection.
        score: Its score; equal ones stay in the order given.
        correct: Whether it is a true positive.
        objects: Classes of the objects to be found.
        known: Classes of all objects.
    """
    values = []
    for one in np.union1d(category, known):
        mine, total = category == one, int((objects == one).sum())
        if not mine.any() and not total:
            continue
        hits = correct[mine][np.argsort(-score[mine], kind='stable')]
        values.append(_interpolated_ap(hits, total) if total else 0.0)
    return 100 * float(np.mean(values)) if values else 0.0


def _interpolated_ap(hits: np.ndarray, total: int) -> float:
    """Precision averaged over the 101 recalls 0, 0.01, ..., 1, as COCO does.

    Args:
        hits: Whether each detection is a true positive, the best first.
        total: Number of objects.
    """
    true = np.cumsum(hits)
    precision = true / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(true / total, np.arange(101) / 100)
    return float(np.append(precision, 0.0)[at].mean())


def _categories(entries: list[dict[str, Any]]) -> np.ndarray:
    return np.array([entry['category_id'] for entry in entries], int)


def _shapes(entries: list[dict[str, Any]], iou_type: str, size: tuple[int, int]) -> list[Any]:
    """Boxes or compressed masks, as pycocotools compares them."""
    if iou_type == 'bbox':
        return [entry['bbox'] for entry in entries]
    return [_compress(entry['segmentation'], size, entry['image_id']) for entry in entries]


def _compress(mask: Any, size: tuple[int, int], image: Any) -> dict[str, Any]:
    """A mask in any of COCO's forms as compressed run lengths."""
    try:
        if isinstance(mask, list):
            return coco_mask.merge(coco_mask.frPyObjects(mask, *size))
        if list(mask['size']) != list(size):
            raise ValueError(f'size {mask["size"]}, the image has {list(size)}')
        return coco_mask.frPyObjects(mask, *size) if isinstance(mask['counts'], list) else mask
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise UserError('segmentation', f'got a mask of image {image} that cannot be read '
                        f'({error})', 'polygons or run lengths of the size of the image') from error


def _iou(shapes: list[Any], others: list[Any], crowd: bool) -> np.ndarray:
    """(shapes, others) intersection over union; over the area of the shape for crowds."""
    if not others:
        return np.zeros((len(shapes), 0))
    return np.nan_to_num(coco_mask.iou(shapes, others, [crowd] * len(others)))


def _read_json(path: str | Path, name: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(name, f'{path} cannot be read ({error.strerror})', 'a JSON file') from error
    except ValueError as error:
        raise UserError(name, f'{path} is no JSON ({error})', 'a JSON file') from error


def _check_keys(entry: Any, keys: Iterable[str], name: str, where: str) -> None:
    if not isinstance(entry, dict):
        raise UserError(name, f'{where} is {entry!r}', f'an object with {", ".join(keys)}')
    if missing := [key for key in keys if key not in entry]:
        raise UserError(name, f'{where} has no {", ".join(missing)}',
                        f'an object with {", ".join(keys)}')


def _check_entry(entry: dict[str, Any], truth: Truth, iou_type: str, name: str,
                 where: str) -> None:
    """Check image, class and box of an annotation or prediction."""
    for key, known in (('image_id', truth.images), ('category_id', truth.categories)):
        if isinstance(entry[key], list | dict) or entry[key] not in known:
            some = ', '.join(repr(value) for value in islice(known, 5))
            raise UserError(name, f'{where} has {key} {entry[key]!r}',
                            f'one of the {len(known)} of the annotations ({some}, ...)',
                            'annotations and predictions must be of one data set')
    box = entry['bbox'] if iou_type == 'bbox' else [0] * 4
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        raise UserError(name, f'{where} has bbox {box!r}',
                        'four numbers: left, top, width, height')


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
