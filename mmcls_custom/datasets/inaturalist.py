"""iNaturalist 2018 with the time and place of its pictures, and what it is checked for."""
from __future__ import annotations

import json
import logging
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from mmcls_custom.datasets.checks import ClassCheck
from mmdcn.data.checks import compare_classes, register_check
from mmdcn.errors import UserError, shorten_text

_DATE = re.compile(r'\s*\d+-(\d{1,2})-\d+')


def encode_time(date: str | None) -> tuple[float, float, float, float]:
    """A date as four numbers: sine and cosine of the month on a circle of 12, then two zeros.

    The zeros have the place of the hour, which the published model does not read.

    Args:
        date: Begins with year-month-day; None or another text gives four zeros.
    """
    match = _DATE.match(date) if date else None
    month = int(match[1]) if match else 0
    if not 1 <= month <= 12:
        return (0.0, 0.0, 0.0, 0.0)
    angle = 2 * math.pi * month / 12
    return (math.sin(angle), math.cos(angle), 0.0, 0.0)


def encode_place(latitude: float | None, longitude: float | None) -> tuple[float, float, float]:
    """A place as (x, y, z) on the unit sphere; z points north, x to longitude 0.

    Args:
        latitude: -90 to 90 degrees north. None gives three zeros, and so does exactly 0, as in the
            published training.
        longitude: -180 to 180 degrees east; None and 0 as above.

    Raises:
        UserError: A number is out of its range, or is none.
    """
    for name, value, limit in (('latitude', latitude, 90), ('longitude', longitude, 180)):
        fine = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (fine and abs(value) <= limit):
            raise UserError(name, f'got {value!r}', f'-{limit} to {limit} degrees, or None',
                            'correct it; mind that the latitude comes first')
    if not latitude or not longitude:
        return (0.0, 0.0, 0.0)
    north, east = math.radians(latitude), math.radians(longitude)
    return (math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north))


@DATASETS.register_module()
class INaturalist2018(BaseDataset):
    """Pictures, labels, times and places of iNaturalist 2018's own files.

    The labels are the positions of the categories in ``ann_file``, whose names are the classes. A
    sample has ``img_path``, ``gt_label`` and ``time_place``, seven numbers as float32: those of
    :func:`encode_time`, then those of :func:`encode_place`.

    Args:
        ann_file: ``train2018.json`` or ``val2018.json``, below ``data_root``.
        loc_file: ``train2018_locations.json`` or ``val2018_locations.json``, below ``data_root``;
            None: no time and place is known.
        **kwargs: As of mmpretrain's ``BaseDataset``.

    Attributes:
        categories: Their names, in the order of the file.
        without_time: Number of pictures whose time is not known.
        without_place: Number of pictures whose place is not known.
    """

    def __init__(self, ann_file: str, loc_file: str | None = None, **kwargs: Any) -> None:
        self.loc_file = loc_file
        self.categories: list[str] = []
        self.without_time = self.without_place = 0
        super().__init__(ann_file, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Samples in the order of the pictures in ``ann_file``.

        Raises:
            UserError: A file is not as published; the message names it and the entry.
        """
        content = _read(self.ann_file)
        if not isinstance(content, dict):
            raise UserError(self.ann_file, f'got a {type(content).__name__}',
                            'an object with images, annotations and categories')
        images, annotations, categories = (
            _entries(content.get(part), f'{self.ann_file}: {part}', keys) for part, keys in (
                ('images', ('id', 'file_name')), ('annotations', ('image_id', 'category_id')),
                ('categories', ('id', 'name'))))
        self.categories = [str(category['name']) for category in categories]
        self._metainfo.setdefault('classes', tuple(self.categories))
        positions = {category['id']: i for i, category in enumerate(categories)}
        labels = {}
        for entry in annotations:
            if entry['category_id'] not in positions:
                raise UserError(f'{self.ann_file}: the annotation of image {entry["image_id"]}',
                                f'got category_id {entry["category_id"]!r}',
                                f'the id of one of the {len(positions)} categories of the file',
                                'get the file anew, or correct it')
            labels[entry['image_id']] = positions[entry['category_id']]
        samples = []
        for image, (time, place) in zip(images, self._times_and_places(images), strict=True):
            if image['id'] not in labels:
                raise UserError(f'{self.ann_file}: image {image["id"]}', 'got no annotation',
                                'one with its class', 'use train2018.json or val2018.json')
            self.without_time += not any(time)
            self.without_place += not any(place)
            samples.append(dict(
                img_path=os.path.join(self.img_prefix or '', str(image['file_name'])),
                gt_label=labels[image['id']], time_place=np.array((*time, *place), np.float32)))
        return samples

    def _times_and_places(self, images: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
        """Encoded time and place of each image."""
        if self.loc_file is None:
            return [(encode_time(None), encode_place(None, None))] * len(images)
        path = str(Path(self.data_root or '') / self.loc_file)
        records = _entries(_read(path), path, ('date', 'lat', 'lon'))
        if all('id' in record for record in records):
            by_id = {record['id']: record for record in records}
            records = [by_id.get(image['id'], {}) for image in images]
        elif len(records) != len(images):
            raise UserError(path, f'got {len(records)} entries without id',
                            f'{len(images)}, one for each image of {self.ann_file} in its order',
                            'use the file of the same part of the set')
        found = []
        for image, record in zip(images, records, strict=True):
            try:
                place = encode_place(record.get('lat'), record.get('lon'))
            except UserError as error:
                raise UserError(f'{path}: {error.name} of image {image["id"]}', error.found,
                                error.expected, error.remedy) from error
            date = record.get('date')
            found.append((encode_time(date if isinstance(date, str) else None), place))
        return found


def _read(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:  # no JSON, or no text
        raise UserError(path, f'not JSON ({shorten_text(str(error))})', remedy='get it anew'
                        ) from error


def _entries(value: Any, name: str, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """A list of objects that have these keys, none with a list or an object, or UserError."""
    if not isinstance(value, list):
        raise UserError(name, f'got a {type(value).__name__}', 'a list of objects')
    for number, entry in enumerate(value):
        if not isinstance(entry, dict) or any(
                isinstance(entry.get(key, []), list | dict) for key in keys):
            raise UserError(f'{name}[{number}]', f'got {shorten_text(str(entry), 100)}',
                            f'an object with {", ".join(keys)}')
    return value


@register_check(INaturalist2018)
class INaturalistCheck(ClassCheck):
    """The categories of the file must be the classes; unknown times and places are counted."""

    def check(self, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check`."""
        compare_classes(list(dataset.metainfo['classes']), dataset.categories, where,
                        f'the categories in {dataset.ann_file}')
        super().check(dataset, where)
        for what, count in (('time', dataset.without_time), ('place', dataset.without_place)):
            if count:
                print_log(f'{where}: the {what} of {count} pictures is not known, zeros stand in',
                          logger='current', level=logging.WARNING if count >= len(dataset)
                          else logging.INFO)
