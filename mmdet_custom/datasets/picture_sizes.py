"""Width and height that annotations give, compared with those of the pictures themselves."""
from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.logging import print_log

from mmdcn.data.files import ImageHeader, read_headers
from mmdet_custom.datasets.coco_annotations import Notes, image_name, refuse

_IGNORE = "LoadImageFromFile(color_type='color_ignore_orientation')"


@dataclass(frozen=True, slots=True)
class Sized:
    """A picture and the size that its annotations give it.

    Attributes:
        name: What messages call it.
        path: Its file.
        size: Width and height in pixels.
    """

    name: str
    path: str
    size: tuple[int, int]


def transforms(steps: Any) -> Iterator[Any]:
    """All transforms of a pipeline, those within others too."""
    for step in getattr(steps, 'transforms', steps) or ():
        if isinstance(step, (list, tuple)) or hasattr(step, 'transforms'):
            yield from transforms(step)
        yield step


def loads_as_stored(dataset: Any) -> bool:
    """Whether the pipeline of a data set loads pictures without heeding their EXIF rotation."""
    for step in transforms(getattr(dataset, 'pipeline', ())):
        color = getattr(step, 'color_type', None)
        if isinstance(color, str):
            return color == 'unchanged' or color.endswith('ignore_orientation') \
                or getattr(step, 'imdecode_backend', 'cv2') in ('turbojpeg', 'tifffile')
    return False


def headers_of(paths: Sequence[str]) -> dict[str, ImageHeader | None]:
    """Headers of the local ones of some pictures; None where one cannot be read."""
    return read_headers([path for path in paths if '://' not in path])


def has_size(image: dict[str, Any]) -> bool:
    """Whether an image of an annotation file has a width and a height that can be."""
    return all(isinstance(image.get(key), (int, float)) and image[key] > 0
               for key in ('width', 'height'))


def mend_sizes(images: Iterable[dict[str, Any]], folder: str, stored: bool, notes: Notes) -> None:
    """Fill in absent widths and heights from the pictures.

    Args:
        images: Images of an annotation file; changed in place.
        folder: Where the pictures are.
        stored: Take the size without EXIF rotation, as the pipeline loads them so.
        notes: Takes down what was mended.

    Raises:
        UserError: A picture is not there or cannot be read.
    """
    lacking = [(os.path.join(folder, image['file_name']), image) for image in images
               if not has_size(image)]
    if not lacking:
        return
    headers = headers_of([path for path, _ in lacking])
    refuse(notes.file, ((f'{image_name(image)} ({path})', f'width {image.get("width")!r} and '
                         f'height {image.get("height")!r}') for path, image in lacking
                        if headers.get(path) is None),
           'those of its picture', 'they cannot be read from the picture: write them into the '
           'file, or see that the picture is there and whole')
    for path, image in lacking:
        image['width'], image['height'] = loaded_size(headers[path], stored)
    notes.add('absent width and height were read from the pictures',
              [image_name(image) for _, image in lacking])


def loaded_size(header: ImageHeader, stored: bool) -> tuple[int, int]:
    """Width and height of a picture as a pipeline loads it.

    Args:
        header: Header of the picture.
        stored: The pipeline does not heed EXIF rotation.
    """
    return (header.width, header.height) if stored else header.upright_size


def compare_sizes(pictures: Sequence[Sized], stored: bool, file: str) -> None:
    """Compare the sizes that annotations give with those of the pictures; unreadable ones pass.

    Pictures that EXIF turns without a change of size (by 180 degrees, or square ones) are warned
    about: no number tells whether their boxes were drawn upright.

    Args:
        pictures: What to compare; pictures of no local file pass, too.
        stored: The pipeline does not heed EXIF rotation.
        file: Name of the annotation file.

    Raises:
        UserError: A size is another one.
    """
    headers = headers_of([picture.path for picture in pictures])
    wrong = [(picture, header) for picture in pictures
             if (header := headers.get(picture.path)) is not None
             and tuple(picture.size) != loaded_size(header, stored)]
    if not wrong:
        _warn_of_turned([] if stored else [
            (picture, header) for picture in pictures
            if (header := headers.get(picture.path)) is not None and header.orientation != 1
            and header.upright_size == (header.width, header.height)], file)
        return
    picture, header = wrong[0]
    width, height = loaded_size(header, stored)
    refuse(file, ((f'{other.name} ({other.path})', '{} x {}'.format(*other.size))
                  for other, _ in wrong),
           f'{width} x {height} (width x height), as the picture is loaded',
           _remedy(picture.size, header, stored))


def _warn_of_turned(turned: Sequence[tuple[Sized, ImageHeader]], file: str) -> None:
    if turned:
        picture, header = turned[0]
        print_log(f'{file}: {len(turned)} pictures are turned or mirrored as their EXIF '
                  f'orientation says ({picture.path}: {header.orientation}), and have the same '
                  'size either way: make sure that their boxes were drawn on the upright pictures',
                  logger='current', level=logging.WARNING)


def _remedy(size: tuple[int, int], header: ImageHeader, stored: bool) -> str:
    """Why a size differs, and what to do."""
    if tuple(size) == loaded_size(header, not stored):
        rotation = f'its EXIF orientation is {header.orientation}'
        if stored:
            return f'{rotation} and the annotations are of the upright picture, while the ' \
                "pipeline does not turn it: load it with color_type='color'"
        return f'{rotation} and the annotations are of the picture as stored, not turned: use ' \
            f'{_IGNORE} in the pipelines, or save the pictures upright and annotate these'
    if tuple(size) == (header.height, header.width):
        return 'width and height are exchanged: correct them in the file'
    return 'was the picture resized after it was annotated? Boxes are in pixels: give the ' \
        'picture that was annotated, or scale the annotations; if only width and height are ' \
        'wrong, correct them'
