"""Masks of COCO annotations: polygons and run-length codes, for models that need them."""
from __future__ import annotations

from typing import Any

from mmdet_custom.datasets.coco_annotations import Notes, annotation_name, refuse


def mend_flat_polygons(content: dict[str, Any], notes: Notes) -> None:
    """Put one polygon that is written without its outer list into one.

    Args:
        content: Parsed annotation file; changed in place.
        notes: Takes down what was mended.
    """
    names = []
    for entry in content['annotations']:
        mask = entry.get('segmentation')
        if isinstance(mask, list) and mask and isinstance(mask[0], (int, float)):
            entry['segmentation'] = [mask]
            names.append(annotation_name(entry))
    if names:
        notes.add('segmentation as one flat list of numbers was read as one polygon', names)


def mend_masks(content: dict[str, Any], categories: set[Any], notes: Notes) -> None:
    """Check that annotations of some categories have a mask; leave stray points and lines out.

    Args:
        content: Parsed annotation file; changed in place.
        categories: Ids of the categories in use.
        notes: Takes down what was mended.

    Raises:
        UserError: An annotation has no mask, or one that is neither polygons nor a run-length
            code of the size of its picture.
    """
    sizes = {image['id']: [image.get('height'), image.get('width')] for image in content['images']}
    faults, names = [], []
    for entry in content['annotations']:
        if entry['category_id'] not in categories:
            continue
        mask = entry.get('segmentation')
        try:
            if isinstance(mask, dict):
                fine = _is_code(mask, sizes[entry['image_id']])
            else:
                whole = [polygon for polygon in mask or ()
                         if len(polygon) >= 6 and not len(polygon) % 2 and _is_finite(polygon)]
                fine = bool(whole)
                if fine and len(whole) < len(mask):
                    entry['segmentation'] = whole
                    names.append(annotation_name(entry))
        except TypeError:  # no list where one should be, no number where one should be
            fine = False
        if not fine:
            faults.append((annotation_name(entry), _describe(entry)))
    refuse(notes.file, faults, 'polygons of at least three points [[x, y, x, y, x, y, ...], ...], '
           'or a run-length code whose size is the [height, width] of its picture',
           'the model or its metric needs the mask of every object: draw it, remove the '
           'annotation, or use a detector of boxes (no mask head, with_mask=False in the '
           "pipeline, metric='bbox')")
    if names:
        notes.add('polygons of less than three points were left out', names)


def _is_finite(polygon: list[float]) -> bool:
    total = sum(polygon)
    return total - total == 0


def _is_code(mask: dict[str, Any], size: list[Any]) -> bool:
    counts = mask.get('counts')
    known = list(mask.get('size') or ())
    if len(known) != 2 or (size[0] is not None and known != size):
        return False
    if isinstance(counts, list):
        return sum(counts) == known[0] * known[1]
    return isinstance(counts, (str, bytes)) and bool(counts)


def _describe(entry: dict[str, Any]) -> str:
    if 'segmentation' not in entry:
        return 'no segmentation'
    mask = entry['segmentation']
    if isinstance(mask, dict):
        return f'segmentation of size {mask.get("size")!r}, with ' \
            f'{"no" if not mask.get("counts") else "its"} counts'
    text = repr(mask)
    return f'segmentation {text if len(text) < 80 else text[:76] + " ..."}'
