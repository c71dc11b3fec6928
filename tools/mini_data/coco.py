"""COCO: pictures of several objects with boxes, polygons and crowds."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.mini_data.classes import COCO_CATEGORY_IDS, COCO_CLASSES, SPLITS
from tools.mini_data.polygons import polygon_area, polygon_box, to_pixels, to_polygons, to_runs
from tools.mini_data.scenes import Scene, add_crowd, add_object, finish, new_scene, save_jpeg
from tools.mini_data.sources import LICENSES, PHOTOS
from tools.mini_data.store import Job, scaled, write_json

COUNTS = {'train': 1600, 'val': 150}
SIZES = ((160, 128),) * 14 + ((128, 160),) * 3 + ((144, 144), (192, 120), (150, 113))
_FIRST_ID = {'train': 200001, 'val': 139}
_LICENSE_IDS = {name: number for number, name in enumerate(LICENSES, 1)}


def plan(seed: int, scale: float) -> list[Job]:
    """One job per picture."""
    return [Job('coco', seed, split, index)
            for split in SPLITS for index in range(scaled(COUNTS[split], scale))]


def draw_size(rng: np.random.Generator, name: str, smallest: float, largest: float) -> float:
    """Size of an object in pixels, from small to large; digits need room for their strokes."""
    low = smallest * 1.5 if name.startswith('digit_') else smallest
    return float(low * (largest / low) ** (rng.uniform() ** 0.8))


def _draw_scene(rng: np.random.Generator, index: int, split: str) -> Scene:
    """A scene of its own kind: every 25th picture is empty, every 30th holds a crowd."""
    size = SIZES[int(rng.integers(len(SIZES)))]
    scene = new_scene(rng, size, split, depth=0.4)
    if index % 25 == 24:
        return scene
    if index % 30 == 10:
        add_crowd(rng, scene, COCO_CLASSES[int(rng.integers(len(COCO_CLASSES)))], split)
    for _ in range(int(rng.integers(1, 5))):
        name = COCO_CLASSES[int(rng.integers(len(COCO_CLASSES)))]
        add_object(rng, scene, name, draw_size(rng, name, 24, 90), split)
    return scene


def _annotate(scene: Scene) -> list[dict]:
    """Annotations of a scene without ids."""
    found = []
    for number, item in enumerate(scene.items, 1):
        fine = scene.top == number
        entry = {'category_id': COCO_CATEGORY_IDS[item.name], 'iscrowd': int(item.crowd)}
        if item.crowd:
            mask = to_pixels(fine)
            rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            entry['segmentation'] = to_runs(mask)
            entry['area'] = int(mask.sum())
            entry['bbox'] = [int(cols[0]), int(rows[0]), int(cols[-1] - cols[0] + 1),
                             int(rows[-1] - rows[0] + 1)]
        else:
            polygons = to_polygons(fine)
            entry['segmentation'] = polygons
            entry['area'] = polygon_area(polygons)
            entry['bbox'] = polygon_box(polygons)
        found.append(entry)
    return found


def draw(folder: Path, job: Job) -> dict:
    """Draw and write one picture; returns its entries for the annotation file."""
    rng = job.rng()
    scene = _draw_scene(rng, job.index, job.split)
    # As in COCO, ids are not consecutive.
    image_id = _FIRST_ID[job.split] + job.index * 7
    file_name = f'{image_id:012d}.jpg'
    save_jpeg(finish(rng, scene), str(folder / f'{job.split}2017' / file_name))
    height, width = scene.image.shape[:2]
    image = {'id': image_id, 'file_name': file_name, 'width': width, 'height': height,
             'license': _LICENSE_IDS[PHOTOS[scene.photo].license],
             'coco_url': '', 'flickr_url': '', 'date_captured': ''}
    return {'split': job.split, 'file': f'{job.split}2017/{file_name}', 'image': image,
            'annotations': _annotate(scene), 'provenance': scene.provenance()}


def _info(split: str) -> dict:
    """The head of an annotation file."""
    return {
        'info': {'description': f'mmdcn mini COCO, {split}', 'url': '', 'version': '1.0',
                 'year': 2017, 'contributor': 'mmdcn', 'date_created': ''},
        'licenses': [{'id': _LICENSE_IDS[name], 'name': name, 'url': url}
                     for name, url in LICENSES.items()],
        'categories': [{'id': number, 'name': name,
                        'supercategory': 'digit' if name.startswith('digit_') else 'shape'}
                       for name, number in COCO_CATEGORY_IDS.items()],
    }


def prepare(folder: Path) -> None:
    """Make the folders that jobs write to."""
    for name in ('train2017', 'val2017', 'annotations'):
        (folder / name).mkdir()


def complete(folder: Path, records: list[dict]) -> dict[str, dict[str, int]]:
    """Write the annotation files; returns counts per split."""
    counts = {}
    for split in SPLITS:
        own = [record for record in records if record['split'] == split]
        annotations = []
        for record in own:
            for entry in record['annotations']:
                number = 1000 * (1 + SPLITS.index(split) * 100) + len(annotations)
                annotations.append({'id': number, 'image_id': record['image']['id'], **entry})
        content = _info(split) | {'images': [record['image'] for record in own],
                                  'annotations': annotations}
        write_json(folder / 'annotations' / f'instances_{split}2017.json', content)
        counts[split] = {
            'images': len(own), 'objects': sum(not entry['iscrowd'] for entry in annotations),
            'crowds': sum(entry['iscrowd'] for entry in annotations),
            'empty_images': sum(not record['annotations'] for record in own)}
    return counts
