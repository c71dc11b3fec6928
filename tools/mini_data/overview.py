"""Labelled contact sheets, drawn from the written files, so that a person can look."""
from __future__ import annotations

import json
from pathlib import Path

import mmengine
import numpy as np
from PIL import Image, ImageDraw

from tools.mini_data.ade import FOLDERS
from tools.mini_data.classes import ADE_CLASSES, COCO_CATEGORY_IDS, IMAGENET_CLASSES, PALETTE
from tools.mini_data.nuscenes_world import CAMERAS

_COLUMNS = 6
_ROWS = {'train': 2, 'val': 2}


def _caption(picture: Image.Image, spot: tuple[float, float], text: str,
             colour: tuple[int, int, int]) -> None:
    """Write text on a dark box, moved inside the picture."""
    pen = ImageDraw.Draw(picture)
    x, y = max(0, min(spot[0], picture.width - 6 * len(text))), max(0, spot[1] - 11)
    pen.rectangle(pen.textbbox((x, y), text), fill=(0, 0, 0))
    pen.text((x, y), text, fill=colour)


def _enlarged(path: Path, factor: int) -> Image.Image:
    """A written picture, enlarged for the sheet."""
    with Image.open(path) as picture:
        size = (picture.width * factor, picture.height * factor)
        return picture.convert('RGB').resize(size, Image.Resampling.BICUBIC)


def _coco_pictures(folder: Path, split: str, count: int) -> list[Image.Image]:
    """Pictures with polygons, crowd boxes and class names."""
    content = json.loads((folder / f'annotations/instances_{split}2017.json').read_text('utf-8'))
    names = {number: name for name, number in COCO_CATEGORY_IDS.items()}
    pictures = []
    for image in content['images'][:count]:
        picture = _enlarged(folder / f'{split}2017' / image['file_name'], 2)
        pen = ImageDraw.Draw(picture)
        for entry in content['annotations']:
            if entry['image_id'] != image['id']:
                continue
            name = names[entry['category_id']]
            colour = PALETTE[list(COCO_CATEGORY_IDS).index(name) + 1]
            x, y, width, height = (2 * value for value in entry['bbox'])
            if entry['iscrowd']:
                name = f'crowd of {name}'
                pen.rectangle((x, y, x + width, y + height), outline=colour)
            else:
                for polygon in entry['segmentation']:
                    pen.polygon([2 * value for value in polygon], outline=colour)
            _caption(picture, (x, y), name, colour)
        pictures.append(picture)
    return pictures


def _imagenet_pictures(folder: Path, split: str, count: int) -> list[Image.Image]:
    """Pictures with their class names, the classes in turn."""
    files = [sorted((folder / split / name).iterdir()) for name in IMAGENET_CLASSES]
    pictures = []
    for number in range(count):
        own = files[number % len(files)]
        path = own[number // len(files) % len(own)]
        picture = _enlarged(path, 3)
        _caption(picture, (2, 13), path.parent.name, (255, 255, 255))
        pictures.append(picture)
    return pictures


def _ade_pictures(folder: Path, split: str, count: int) -> list[Image.Image]:
    """Each picture above its label map, void in black, with a legend."""
    colours = np.array([(0, 0, 0), *PALETTE[:len(ADE_CLASSES)]], np.uint8)
    pictures = []
    for path in sorted((folder / 'images' / FOLDERS[split]).iterdir())[:count]:
        picture = _enlarged(path, 2)
        with Image.open(folder / 'annotations' / FOLDERS[split] / f'{path.stem}.png') as labels:
            label_map = np.asarray(labels)
        below = Image.fromarray(colours[label_map])
        below = below.resize(picture.size, Image.Resampling.NEAREST)
        both = Image.new('RGB', (picture.width, 2 * picture.height))
        both.paste(picture, (0, 0))
        both.paste(below, (0, picture.height))
        shown = [label for label in np.unique(label_map).tolist() if label > 1]
        for line, label in enumerate(shown):
            _caption(both, (2, picture.height + 13 * (line + 1)), ADE_CLASSES[label - 1],
                     PALETTE[label - 1])
        pictures.append(both)
    return pictures


# Pairs of corners of a box that an edge joins; a corner's bits are its sides.
_EDGES = [(first, first | bit) for first in range(8) for bit in (1, 2, 4) if not first & bit]


def _edges_of(box: dict, matrix: list[list[float]]) -> list[tuple[float, ...]]:
    """Pixels x y x y of the edges of a box of the info file."""
    w, x, y, z = box['quat_wxyz']
    turn = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]])
    width, length, height = box['wlh']
    signs = np.array([[number >> axis & 1 for axis in range(3)] for number in range(8)]) - 0.5
    corners = (signs * (length, width, height)) @ turn.T + box['xyz']
    pixels = corners @ np.array(matrix).T
    pixels = pixels[:, :2] / pixels[:, 2:]
    return [(*pixels[first], *pixels[second]) for first, second in _EDGES]


def _nuscenes_pictures(folder: Path, split: str, count: int) -> list[Image.Image]:
    """The six cameras of a key frame in a row, with the boxes of the info file."""
    content = mmengine.load(folder / f'nuscenes_infos_temporal_{split}.pkl')
    names = {number: name for name, number in content['metainfo']['categories'].items()}
    firsts = {info['scene_token']: info for info in reversed(content['data_list'])}
    pictures = []
    for info in list(firsts.values())[:count // _COLUMNS]:
        for camera in CAMERAS:
            view = info['images'][camera]
            with Image.open(folder / 'samples' / camera / view['img_path']) as picture:
                small = picture.reduce(4)
            pen = ImageDraw.Draw(small)
            for box in view['mono_instances']:
                for edge in _edges_of(box, view['cam2img']):
                    pen.line([value / 4 for value in edge], fill=(255, 255, 255))
                _caption(small, (box['bbox'][0] / 4, box['bbox'][1] / 4), names[box['label']],
                         (255, 255, 255))
            _caption(small, (2, 13), camera, (255, 255, 255))
            pictures.append(small)
    return pictures


_PICTURES = {'coco': _coco_pictures, 'imagenet': _imagenet_pictures, 'ade': _ade_pictures,
             'nuscenes': _nuscenes_pictures}


def write_overview(folder: Path, set_name: str) -> None:
    """Write ``overview.png`` of a set: rows of train pictures above rows of val pictures."""
    rows: list[list[Image.Image]] = []
    titles = []
    for split, count in _ROWS.items():
        pictures = _PICTURES[set_name](folder, split, count * _COLUMNS)
        for first in range(0, len(pictures), _COLUMNS):
            rows.append(pictures[first:first + _COLUMNS])
            titles.append(split)
    cell_width = max(picture.width for row in rows for picture in row) + 6
    heights = [max(picture.height for picture in row) + 20 for row in rows]
    sheet = Image.new('RGB', (cell_width * _COLUMNS, sum(heights)), (255, 255, 255))
    upper = 0
    for row, title, height in zip(rows, titles, heights, strict=True):
        ImageDraw.Draw(sheet).text((4, upper + 2), f'{set_name} {title}', fill=(0, 0, 0))
        for column, picture in enumerate(row):
            sheet.paste(picture, (column * cell_width, upper + 16))
        upper += height
    sheet.save(folder / 'overview.png', format='PNG')
