"""What annotations in other formats than COCO's are checked for: VOC's XML, CrowdHuman, OpenImages.

mmdet reads these formats, and trips over a faulty file without naming it: the checks find it then.
"""
from __future__ import annotations

import csv
import json
import logging
import math
import xml.etree.ElementTree as ET  # noqa: N817  (the name that its manual gives it)
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdet.datasets import CrowdHumanDataset, OpenImagesDataset, XMLDataset
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from mmdcn.checkpoints.plain_pickles import read_pickle
from mmdcn.data.checks import register_check, shorten
from mmdcn.data.files import image_problem
from mmdcn.errors import UserError
from mmdet_custom.datasets.checks import CocoCheck, size_source
from mmdet_custom.datasets.coco_annotations import refuse

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
# What one fault of an annotation reads like: what is faulty, what it is, what it should be, remedy.
Fault = tuple[str, str, str, str]


def _unread(dataset_cfg: dict[str, Any]) -> Any:
    """A data set of a config with all its paths, without what they hold."""
    return DATASETS.build({**dataset_cfg, 'lazy_init': True})


def _raise(fault: Fault | None, error: Exception | None = None) -> None:
    if fault is not None:
        raise UserError(*fault) from error


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def _is_box(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 4 and all(
        isinstance(value, (int, float)) and math.isfinite(value) for value in values)


@register_check(XMLDataset)
class XmlCheck(CocoCheck):
    """Every file must be whole, and hold objects of the classes of the data set.

    Names that no class has are told, as mmdet passes over them without a word.
    """

    def check(self, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check`."""
        names: Counter[str] = Counter()
        for path in _xml_files(dataset):
            _raise(xml_fault(path, names))
        classes = set(dataset.metainfo['classes'])
        others = [f'{name} ({count})' for name, count in names.items() if name not in classes]
        if names and not classes & set(names):
            raise UserError(f'{where}.metainfo.classes', f'got {shorten(sorted(classes))}',
                            f'names that {dataset.ann_file} leads to: {shorten(sorted(names))}',
                            'set metainfo=dict(classes=(...)) of the data set')
        if others:
            _warn(f'{where}: objects of names that metainfo.classes does not hold are left out: '
                  + shorten(others))
        super().check(dataset, where)

    def explain(self, dataset_cfg: dict[str, Any], where: str, error: Exception) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.explain`: names the faulty file."""
        for path in _xml_files(_unread(dataset_cfg)):
            if path.is_file():
                _raise(xml_fault(path, Counter()), error)


def _xml_files(dataset: Any) -> Iterator[Path]:
    folder = Path(dataset.sub_data_root, dataset.ann_subdir)
    for name in Path(dataset.ann_file).read_text().splitlines():
        yield folder / f'{name}.xml'


def xml_fault(path: Path, names: Counter[str]) -> Fault | None:
    """What is wrong with an annotation file of VOC, or None.

    Args:
        path: The file.
        names: Takes down the names of its objects.
    """
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        return str(path), f'no XML ({error})', '', 'is the file whole? Export it or get it anew'
    size = root.find('size')
    if size is not None:
        for key in ('width', 'height'):
            text = size.findtext(key)
            if not (text and text.strip().isdigit() and int(text)):
                return (f'{path}: {key} in size', f'got {text!r}', 'the pixels of the picture',
                        'write it into the file, or remove size')
    for number, entry in enumerate(root.findall('object'), 1):
        name, where = entry.findtext('name'), f'{path}: object {number}'
        corners = [entry.findtext(f'bndbox/{key}') for key in _CORNERS]
        if not name:
            return f'{where}: name', f'got {name!r}', 'the name of a class', 'write it'
        try:
            left, top, right, bottom = (int(float(corner)) for corner in corners)
        except (OverflowError, TypeError, ValueError):
            return (f'{where} ({name}): bndbox', f'got {shorten(corners)}',
                    f'four numbers: {", ".join(_CORNERS)}', 'correct it, or remove the object')
        if right < left or bottom < top:
            return (f'{where} ({name}): bndbox', f'got {shorten(corners)}',
                    'xmin and ymin before xmax and ymax', 'correct it, or remove the object')
        names[name] += 1
    return None


@register_check(CrowdHumanDataset)
class CrowdHumanCheck(CocoCheck):
    """Every line must hold the boxes of a picture; one at least must be of a person."""

    def check(self, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check`."""
        tags: Counter[str] = Counter()
        _raise(odgt_fault(dataset.ann_file, tags))
        classes = dataset.metainfo['classes']
        if not set(classes) & set(tags):
            raise UserError(f'{where}.metainfo.classes', f'got {shorten(classes)}',
                            f'tags that {dataset.ann_file} holds: {shorten(sorted(tags))}',
                            'set metainfo=dict(classes=(...)) of the data set')
        super().check(dataset, where)

    def explain(self, dataset_cfg: dict[str, Any], where: str, error: Exception) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.explain`: names the line or the picture."""
        if isinstance(error, AttributeError) and 'extra_ann_file' in str(error):
            raise UserError(f'{where}.ann_file', f'got {dataset_cfg["ann_file"]!r}',
                            "a name that holds 'train' or 'val'",
                            'rename the file, or give extra_ann_file') from error
        root = Path(dataset_cfg.get('data_root') or '')
        _raise(odgt_fault(root / dataset_cfg['ann_file'], Counter()), error)
        split = 'train' if 'train' in Path(dataset_cfg['ann_file']).name else 'val'
        sizes = Path(dataset_cfg.get('extra_ann_file') or root / f'id_hw_{split}.json')
        identities = [entry['ID'] for _, entry in _odgt_entries(root / dataset_cfg['ann_file'])]
        if sizes.is_file():
            try:
                known = json.loads(sizes.read_text())
                lacking = [identity for identity in identities if identity not in known]
                found = f'it lacks {shorten(lacking)}' if lacking else ''
            except ValueError as failure:
                found = f'no JSON ({failure})'
            _raise((str(sizes), found, 'the sizes of all pictures',
                    'remove it: it is written anew') if found else None, error)
            return
        folder = root / dataset_cfg.get('data_prefix', {}).get('img', '')
        for identity in identities:
            path = folder / f'{identity}.jpg'
            problem = image_problem(str(path)) if path.is_file() else None
            _raise((str(path), problem, 'a whole picture', 'get it anew') if problem else None,
                   error)


def _odgt_entries(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(Path(path).read_text().strip().split('\n'), 1):
        yield number, json.loads(line)


def odgt_fault(path: str | Path, tags: Counter[str]) -> Fault | None:
    """What is wrong with an annotation file of CrowdHuman, or None.

    Args:
        path: The file: a JSON object in every line, one line for each picture.
        tags: Takes down the tags of its boxes.
    """
    number = 0
    try:
        for number, entry in _odgt_entries(path):
            if not isinstance(entry, dict) or not isinstance(entry.get('ID'), str) \
                    or not isinstance(entry.get('gtboxes'), list):
                return (f'{path}: line {number}', 'got no ID or no gtboxes',
                        'the boxes of a picture', 'get the file anew')
            for place, box in enumerate(entry['gtboxes'], 1):
                where = f'{path}: line {number} (ID {entry["ID"]}), box {place}'
                for key in ('tag', 'fbox', 'hbox', 'vbox'):
                    value = box.get(key) if isinstance(box, dict) else None
                    if not (isinstance(value, str) if key == 'tag' else _is_box(value)):
                        return (f'{where}: {key}', f'got {value!r}', 'a text' if key == 'tag' else
                                'left, top, width and height in pixels', 'correct it, or remove '
                                'the box')
                tags[box['tag']] += 1
    except json.JSONDecodeError as error:
        return (f'{path}: line {number + 1}', f'not JSON ({error})', 'one object in every line',
                'is the file whole? Get it anew')
    return None


@register_check(OpenImagesDataset)
class OpenImagesCheck(CocoCheck):
    """The four files must fit one another, and boxes lie within their pictures."""

    def check(self, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check`."""
        _raise(_label_fault(dataset.label_file))
        super().check(dataset, where)
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            right, bottom = info['width'], info['height']
            refuse(dataset.ann_file, (
                (f'image id {info["img_id"]!r}', f'the box {box} in pixels')
                for box in (instance['bbox'] for instance in info['instances'])
                if not (-1 <= box[0] <= box[2] <= right + 1 and -1 <= box[1] <= box[3] <= bottom + 1
                        )), f'a box within {right} x {bottom} pixels',
                'coordinates are fractions of the width and height: correct the file')

    def explain(self, dataset_cfg: dict[str, Any], where: str, error: Exception) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.explain`: names the file that does not fit."""
        dataset = _unread(dataset_cfg)
        _raise(_label_fault(dataset.label_file), error)
        with open(dataset.label_file, encoding='utf-8') as stream:
            labels = {row[0] for row in csv.reader(stream)}
        _raise(_hierarchy_fault(dataset.hierarchy_file, labels), error)
        if dataset.ann_file.endswith('.csv'):
            identities: list[str] = []
            _raise(csv_fault(dataset.ann_file, labels, identities), error)
            _raise(_meta_fault(size_source(dataset), identities), error)


def _label_fault(path: str) -> Fault | None:
    with open(path, encoding='utf-8') as stream:
        rows = list(csv.reader(stream))
    if rows and rows[0][0] == 'LabelName':
        return (path, 'its first line is a heading, which counts as a class',
                'a file without one, as of OpenImages V6', 'remove the line')
    if not rows or min(map(len, rows)) < 2:
        return path, 'got a line without two columns', 'label and name of a class', 'get it anew'
    return None


def _hierarchy_fault(path: str, labels: set[str]) -> Fault | None:
    try:
        todo = [json.loads(Path(path).read_text())]
    except ValueError as error:
        return path, f'not JSON ({error})', 'the hierarchy of the classes', 'get it anew'
    while todo:
        for child in todo.pop().get('Subcategory', ()):
            if 'LabelName' in child and child['LabelName'] not in labels:
                return (path, f'got the class {child["LabelName"]}', 'classes of label_file',
                        'take both files from one release')
            todo.append(child)
    return None


def csv_fault(path: str, labels: set[str], identities: list[str]) -> Fault | None:
    """What is wrong with an annotation file of OpenImages, or None.

    Args:
        path: The file: a heading, then a line for each box, those of a picture together.
        labels: Labels of all classes.
        identities: Takes down the pictures in their order.
    """
    with open(path, encoding='utf-8') as stream:
        rows = csv.reader(stream)
        next(rows, None)
        for number, row in enumerate(rows, 2):
            try:
                label = row[2]
                [float(value) for value in row[4:8]], [int(value) for value in row[8:13]]
                missing = len(row) < 13
            except (IndexError, ValueError):
                missing = True
            if missing:
                return (f'{path}: line {number}', f'got {shorten(row)}',
                        'the 13 columns of a box', 'get the file anew')
            if label not in labels:
                return (f'{path}: line {number}', f'got the class {label}',
                        'one of label_file', 'take both files from one release')
            if not identities or identities[-1] != row[0]:
                identities.append(row[0])
    return None


def _meta_fault(path: str, identities: list[str]) -> Fault | None:
    """What is wrong with the file of picture sizes; docs/data.md says how to make it."""
    remedy = "make it anew with mmdet's tools/misc/get_image_metas.py"
    try:
        with open(path, 'rb') as stream:
            metas = read_pickle(stream)
        names = [Path(meta['filename']).stem for meta in metas]
    except Exception as error:  # of any kind, where the file is damaged
        return path, f'it cannot be read ({error})', 'the sizes of all pictures', remedy
    if len(names) != len(identities):
        return (path, f'got {len(names)} pictures', f'{len(identities)}, as many as ann_file has',
                remedy)
    for place, pair in enumerate(zip(names, identities, strict=True)):
        if pair[0] != pair[1]:
            return (path, f'got {pair[0]} at place {place}', f'{pair[1]}, as in ann_file', remedy)
    return None
