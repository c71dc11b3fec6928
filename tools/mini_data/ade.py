"""ADE20K: pictures with a label map; 0 is void, classes count from 1."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tools.mini_data.classes import ADE_CLASSES, SPLITS
from tools.mini_data.coco import draw_size
from tools.mini_data.scenes import Scene, add_object, finish, new_scene, save_jpeg
from tools.mini_data.silhouettes import SUPERSAMPLING
from tools.mini_data.store import Job, scaled

COUNTS = {'train': 1500, 'val': 120}
SIZES = ((160, 128),) * 8 + ((128, 160), (128, 128))
FOLDERS = {'train': 'training', 'val': 'validation'}


def plan(seed: int, scale: float) -> list[Job]:
    """One job per picture."""
    return [Job('ade', seed, split, index)
            for split in SPLITS for index in range(scaled(COUNTS[split], scale))]


def label_map(scene: Scene) -> np.ndarray:
    """Labels (H, W) uint8: 0 where a pixel is not of one item alone, else 1 + class index."""
    labels = [ADE_CLASSES.index('background') + 1]
    labels += [ADE_CLASSES.index(item.name) + 1 for item in scene.items]
    height, width = scene.image.shape[:2]
    blocks = scene.top.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING)
    low, high = blocks.min((1, 3)), blocks.max((1, 3))
    return np.where(low == high, np.array(labels, np.uint8)[low], 0).astype(np.uint8)


def draw(folder: Path, job: Job) -> dict:
    """Draw and write one picture and its label map."""
    rng = job.rng()
    scene = new_scene(rng, SIZES[int(rng.integers(len(SIZES)))], job.split, depth=0.4)
    for _ in range(int(rng.integers(2, 6))):
        name = ADE_CLASSES[int(rng.integers(1, len(ADE_CLASSES)))]
        add_object(rng, scene, name, draw_size(rng, name, 28, 90), job.split)
    stem = f'{FOLDERS[job.split]}/ADE_{job.split}_{job.index + 1:08d}'
    save_jpeg(finish(rng, scene), str(folder / f'images/{stem}.jpg'))
    labels = label_map(scene)
    Image.fromarray(labels).save(folder / f'annotations/{stem}.png', format='PNG')
    return {'split': job.split, 'file': f'images/{stem}.jpg', 'provenance': scene.provenance(),
            'pixels': np.bincount(labels.ravel(), minlength=len(ADE_CLASSES) + 1).tolist()}


def prepare(folder: Path) -> None:
    """Make the folders that jobs write to."""
    for kind in ('images', 'annotations'):
        for name in FOLDERS.values():
            (folder / kind / name).mkdir(parents=True)


def complete(folder: Path, records: list[dict]) -> dict[str, dict[str, int]]:
    """Write the list of classes; returns counts per split, background and void in percent."""
    lines = [f'{number}\t{name}' for number, name in enumerate(ADE_CLASSES, 1)]
    (folder / 'objectInfo.txt').write_text('\n'.join(['Idx\tName', *lines, '']), 'utf-8')
    counts = {}
    for split in SPLITS:
        pixels = np.array([record['pixels'] for record in records if record['split'] == split])
        share = pixels.sum(0) / pixels.sum()
        counts[split] = {'images': len(pixels), 'void_percent': round(100 * float(share[0])),
                         'background_percent': round(100 * float(share[1]))}
    return counts
