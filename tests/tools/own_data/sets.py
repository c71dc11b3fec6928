"""Small data sets of one's own, easy to learn: coloured squares on noise."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {'größe rot': (230, 40, 40), 'grün 2': (40, 220, 60), 'blau': (50, 70, 240)}
CATEGORY_IDS = {'grün 2': 90, 'größe rot': 0, 'blau': 7}  # in the order of the file
SIZE = 64


def draw(number: int) -> tuple[Image.Image, str, tuple[int, int, int, int]]:
    """A picture with one square: the picture, its class, its box (x, y, width, height)."""
    rng = np.random.default_rng(number)
    name = list(COLOURS)[number % len(COLOURS)]
    pixels = rng.integers(90, 150, (SIZE, SIZE, 3)).astype(np.uint8)
    side = int(rng.integers(24, 36))
    x, y = (int(value) for value in rng.integers(0, SIZE - side, 2))
    pixels[y:y + side, x:x + side] = COLOURS[name]
    return Image.fromarray(pixels), name, (x, y, side, side)


def coco_content(numbers: range, folder: Path) -> dict[str, Any]:
    """Write pictures into a folder; annotations without area and iscrowd, ids shuffled."""
    folder.mkdir(parents=True)
    images, annotations = [], []
    for number in numbers:
        picture, name, box = draw(number)
        file = f'bild {number:03} ä.png'
        picture.save(folder / file)
        images.append(dict(id=1000 - number, file_name=file, width=SIZE, height=SIZE))
        x, y, width, height = box
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        annotations.append(dict(id=number + 1, image_id=1000 - number, bbox=list(box),
                                category_id=CATEGORY_IDS[name], segmentation=[corners]))
    categories = [dict(id=number, name=name) for name, number in CATEGORY_IDS.items()]
    return dict(images=images, annotations=annotations, categories=categories)


def write_coco(root: Path, train: int = 24, val: int = 9) -> Path:
    """Annotations and pictures of both splits, with spaces and umlauts in the names."""
    contents = {'train': coco_content(range(train), root / 'my pictures/train'),
                'valid': coco_content(range(train, train + val), root / 'my pictures/valid')}
    for split, content in contents.items():
        path = root / f'labels/_annotations.{split}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return root


def write_label_maps(root: Path, train: int = 12, val: int = 6) -> Path:
    """``images/{train,val}`` and ``masks/{train,val}``; 0 is the ground, 255 a frame."""
    for split, numbers in (('train', range(train)), ('val', range(train, train + val))):
        for kind in ('images', 'masks'):
            (root / kind / split).mkdir(parents=True)
        for number in numbers:
            picture, name, (x, y, width, height) = draw(number)
            labels = np.zeros((SIZE, SIZE), np.uint8)
            labels[y:y + height, x:x + width] = 1 + list(COLOURS).index(name)
            labels[0] = 255
            picture.save(root / 'images' / split / f'{number}.png')
            Image.fromarray(labels).save(root / 'masks' / split / f'{number}_mask.png')
    (root / 'classes.txt').write_text('\n'.join(['ground', *COLOURS]) + '\n', encoding='utf-8')
    return root


def write_class_folders(root: Path, train: int = 24, val: int = 12, split: bool = True) -> Path:
    """``{train,val}/CLASS/*.png``, or ``CLASS/*.png`` without a split."""
    parts = (('train', range(train)), ('val', range(train, train + val)))
    for part, numbers in parts if split else (('', range(train + val)), ):
        for number in numbers:
            picture, name, _ = draw(number)
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f'{number}.png')
    return root
