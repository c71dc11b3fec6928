"""One picture of a data set with what is annotated, so that a person can look."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from pycocotools import mask as coco_mask

from mmdcn.writing import whole_file
from tools.own_data.label_maps import IGNORED, read_labels
from tools.own_data.survey import Survey

CELL = (300, 240)  # width, height
_COLUMNS = 4
_GOLDEN = 0.61803


def colour_of(label: int) -> tuple[int, int, int]:
    """A colour for a class, RGB; neighbours differ."""
    hue = np.uint8([[[int(180 * (label * _GOLDEN % 1)), 200, 245]]])
    red, green, blue = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def write_overview(survey: Survey, path: Path) -> None:
    """Draw some pictures of each split, as they are read (turned by EXIF), with their annotations.

    Raises:
        UserError: A label map cannot be read.
    """
    cells = []
    for name, split in survey.splits.items():
        for shown in split.shown:
            picture, truth = shown
            cells.append(_titled(_draw(survey, picture, truth), f'{name}: {picture.name}'))
    rows = -(-len(cells) // _COLUMNS)
    width, height = CELL[0] + 8, CELL[1] + 24
    sheet = Image.new('RGB', (_COLUMNS * width, rows * height), 'white')
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % _COLUMNS * width + 4, number // _COLUMNS * height + 4))
    with whole_file(path) as part:
        sheet.save(part)


def _draw(survey: Survey, path: Path, truth: Any) -> Image.Image:
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith('I'):  # 16-bit: its own range, as nothing else would show
            values = np.asarray(picture).astype(float)
            picture = Image.fromarray(np.uint8(255 * values / max(values.max(), 1)))
        picture = picture.convert('RGB')
    scale = min(CELL[0] / picture.width, CELL[1] / picture.height)
    size = max(1, round(scale * picture.width)), max(1, round(scale * picture.height))
    small = picture.resize(size)
    if isinstance(truth, str):
        return _caption(small, (2, 2), truth, (255, 255, 255))
    if isinstance(truth, Path):
        return _label_map(survey, small, truth)
    for name, entry in truth:
        label = survey.classes.index(name) if name in survey.classes else 0
        small = _object(small, picture.size, scale, name, entry, colour_of(label))
    return small


def _object(small: Image.Image, size: tuple[int, int], scale: float, name: str,
            entry: dict[str, Any], colour: tuple[int, int, int]) -> Image.Image:
    mask = entry.get('segmentation')
    if mask:
        small = _blend(small, _mask(mask, size), colour)
    if (box := entry.get('bbox')) and len(box) == 4:
        x, y, width, height = (scale * value for value in box)
        right, lower = x + max(width, 0), y + max(height, 0)
        ImageDraw.Draw(small).rectangle((x, y, right, lower), outline=colour, width=2)
        small = _caption(small, (x, y), name, colour)
    return small


def _mask(mask: Any, size: tuple[int, int]) -> np.ndarray:
    """Polygons or run lengths -> bool (H, W); nothing where they cannot be read."""
    width, height = size
    try:
        if isinstance(mask, list):
            polygons = mask if isinstance(mask[0], list) else [mask]
            mask = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        elif isinstance(mask['counts'], list):
            mask = coco_mask.frPyObjects(mask, height, width)
        return coco_mask.decode(mask).astype(bool)
    except (KeyError, TypeError, ValueError, IndexError):
        return np.zeros((height, width), bool)


def _blend(small: Image.Image, mask: np.ndarray, colour: tuple[int, int, int]) -> Image.Image:
    resized = Image.fromarray(np.uint8(120 * mask)).resize(small.size)
    return Image.composite(Image.new('RGB', small.size, colour), small, resized)


def _label_map(survey: Survey, small: Image.Image, path: Path) -> Image.Image:
    labels = read_labels(path)
    for label in np.unique(labels).tolist():
        colour = (0, 0, 0) if label == IGNORED else colour_of(label)
        small = _blend(small, labels == label, colour)
    present = [label for label in np.unique(labels).tolist() if label != IGNORED]
    for line, label in enumerate(present[:12]):
        small = _caption(small, (2, 2 + 13 * line), survey.classes[label], colour_of(label))
    return small


def _titled(cell: Image.Image, title: str) -> Image.Image:
    whole = Image.new('RGB', (CELL[0], CELL[1] + 16), 'white')
    whole.paste(cell, (0, 16))
    ImageDraw.Draw(whole).text((0, 0), title[:48], fill='black', font=_font())
    return whole


def _caption(picture: Image.Image, spot: tuple[float, float], text: str,
             colour: tuple[int, int, int]) -> Image.Image:
    pen, font = ImageDraw.Draw(picture), _font()
    spot = (min(max(spot[0], 0), max(0, picture.width - 40)),
            min(max(spot[1], 0), max(0, picture.height - 13)))
    pen.rectangle(pen.textbbox(spot, text, font=font), fill='black')
    pen.text(spot, text, fill=colour, font=font)
    return picture


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(11)
