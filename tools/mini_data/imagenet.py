"""ImageNet: one object per picture, one folder per class."""
from __future__ import annotations

from pathlib import Path

from tools.mini_data.classes import IMAGENET_CLASSES, SPLITS
from tools.mini_data.scenes import add_object, finish, new_scene, save_jpeg
from tools.mini_data.store import Job, scaled

COUNTS = {'train': 1100, 'val': 50}
"""Pictures per class."""

SIZES = ((64, 64),) * 8 + ((76, 64), (64, 76))


def plan(seed: int, scale: float) -> list[Job]:
    """One job per picture; the classes take turns."""
    return [Job('imagenet', seed, split, index) for split in SPLITS
            for index in range(scaled(COUNTS[split], scale) * len(IMAGENET_CLASSES))]


def draw(folder: Path, job: Job) -> dict:
    """Draw and write one picture."""
    rng = job.rng()
    name = IMAGENET_CLASSES[job.index % len(IMAGENET_CLASSES)]
    scene = new_scene(rng, SIZES[int(rng.integers(len(SIZES)))], job.split, depth=0.3)
    size = min(scene.image.shape[:2]) * rng.uniform(0.65, 0.9)
    while not add_object(rng, scene, name, size, job.split, least=0.95):
        size *= 0.9
    if job.split == 'train':
        file = f'train/{name}/{name}_{job.index // len(IMAGENET_CLASSES):05d}.JPEG'
    else:
        file = f'val/{name}/mini_val_{job.index + 1:08d}.JPEG'
    save_jpeg(finish(rng, scene), str(folder / file))
    return {'split': job.split, 'file': file, 'provenance': scene.provenance()}


def prepare(folder: Path) -> None:
    """Make the class folders."""
    for split in SPLITS:
        for name in IMAGENET_CLASSES:
            (folder / split / name).mkdir(parents=True)


def complete(folder: Path, records: list[dict]) -> dict[str, dict[str, int]]:
    """Counts per split; this format has no annotation files."""
    return {split: {'images': sum(record['split'] == split for record in records)}
            for split in SPLITS}
