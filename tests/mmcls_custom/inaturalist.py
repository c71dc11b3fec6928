"""A small set in the form of iNaturalist 2018."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.mmdcn.data.images import write_images

CATEGORIES = [{'id': 7, 'name': 'Ardea alba', 'supercategory': 'Aves'},
              {'id': 3, 'name': 'Bufo bufo', 'supercategory': 'Amphibia'}]
LOCATIONS: list[dict[str, Any]] = [
    {'id': 10, 'lat': 45.0, 'lon': 90.0, 'date': '2017-03-05 10:11:12'},
    {'id': 11, 'lat': None, 'lon': None, 'date': None},
    {'id': 12, 'lat': -30.0, 'lon': -180.0, 'date': '2016-12-31'},
    {'id': 13, 'lat': 0.0, 'lon': 12.5, 'date': 'summer'}]


def content(**changes: Any) -> dict[str, Any]:
    """Annotations of four pictures."""
    names = [f'train_val2018/Aves/7/{i}.jpg' for i in range(4)]
    return dict(
        info={'year': 2018}, categories=CATEGORIES,
        images=[{'id': 10 + i, 'file_name': name} for i, name in enumerate(names)],
        annotations=[{'id': i, 'image_id': 10 + i, 'category_id': (7, 3)[i % 2]}
                     for i in (3, 1, 0, 2)]) | changes


def make(root: Path) -> Path:
    """Write pictures, annotations and locations of both parts."""
    folder = root / 'train_val2018/Aves'
    folder.mkdir(parents=True)
    write_images(folder / '7', 4)
    for part in ('train', 'val'):
        (root / f'{part}2018.json').write_text(json.dumps(content()))
        (root / f'{part}2018_locations.json').write_text(json.dumps(LOCATIONS))
    return root
