"""Missing and cut-off files of a data set, found without decoding whole ones."""
from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError

_SHOWN = 5
_PATH_KEYS = ('img_path', 'seg_map_path')
_THREADS = 16
# Whose EXIF orientation OpenCV heeds; it shows WebP as stored.
_TURNED = ('JPEG', 'MPO', 'PNG')
_PORTION = 256


@dataclass
class Findings:
    """Broken files of one data set: the samples they spoil and what is wrong with each file."""

    total: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    bad_samples: list[int] = field(default_factory=list)

    def describe(self) -> str:
        """The first few broken files and how many there are, one per line."""
        lines = [f'missing file {path}' for path in self.missing]
        lines += [f'damaged file {path}: {why}' for path, why in self.damaged.items()]
        shown = [f'  {line}' for line in lines[:_SHOWN]]
        if len(lines) > _SHOWN:
            shown.append(f'  and {len(lines) - _SHOWN} more')
        return '\n'.join(shown)


def check_files(dataset: Any) -> Findings:
    """Look for missing and cut-off files among the images and label maps of a leaf data set.

    Only local paths are looked at. Existence is read from folder listings; of each file the first
    and last bytes are read, and it is decoded only if these look odd.
    """
    findings = Findings(total=len(dataset))
    samples: dict[str, list[int]] = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for key in _PATH_KEYS:
            path = info.get(key)
            if isinstance(path, str) and '://' not in path:
                samples.setdefault(path, []).append(index)
    listings: dict[str, set[str]] = {}
    present = []
    for path, indices in samples.items():
        folder, name = os.path.split(path)
        if folder not in listings:
            listings[folder] = _listing(folder)
        # A name may itself hold a link to a folder; ask the disk only where the listing says no.
        if name in listings[folder]:
            present.append(path)
        else:
            findings.missing[path] = indices[0]
    # A task per file would hold a million futures in memory for ImageNet.
    portions = [present[i:i + _PORTION] for i in range(0, len(present), _PORTION)]
    with ThreadPoolExecutor(_THREADS) as pool:
        problems = pool.map(lambda portion: [image_problem(path) for path in portion], portions)
        for portion, found in _progress(zip(portions, problems, strict=True), len(portions)):
            findings.damaged.update((path, problem) for path, problem
                                    in zip(portion, found, strict=True) if problem)
    findings.bad_samples = sorted({index for path in (*findings.missing, *findings.damaged)
                                   for index in samples[path]})
    return findings


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image file says of itself before its pixels.

    Attributes:
        width: Columns as stored, before any rotation.
        height: Rows as stored.
        orientation: EXIF orientation 1 to 8; 1, upright, where the file has none or OpenCV does
            not heed it.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as viewers, and OpenCV unless told otherwise, show the picture."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


def read_header(path: str) -> ImageHeader | None:
    """Size and orientation of an image file without decoding it; None where it is no image.

    Raises:
        PIL.Image.DecompressionBombError: It has more pixels than PIL opens.
    """
    try:
        with Image.open(path) as image:
            exif = Image.Exif()
            # image.getexif() would decode a whole PNG to look for it.
            if image.format in _TURNED:
                exif.load(image.info.get('exif') or b'')
            orientation = exif.get(ExifTags.Base.Orientation, 1)
            return ImageHeader(*image.size, orientation if orientation in range(1, 9) else 1)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
        return None


def read_headers(paths: Sequence[str]) -> dict[str, ImageHeader | None]:
    """:func:`read_header` of many files, in threads."""
    found: dict[str, ImageHeader | None] = {}
    portions = [paths[i:i + _PORTION] for i in range(0, len(paths), _PORTION)]
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        headers = pool.map(lambda portion: [read_header(path) for path in portion], portions)
        for portion, part in _progress(zip(portions, headers, strict=True), len(portions)):
            found.update(zip(portion, part, strict=True))
    return found


def _listing(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder or '.'))
    except OSError:
        return set()


def _progress(items: Iterable[Any], total: int) -> Iterator[Any]:
    """Pass items through; for long work write a line with the time left now and then."""
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        now = time.monotonic()
        if now - last > 5:
            left = (now - start) / done * (total - done)
            sys.stderr.write(f'checking images: {done / total:.0%}, {left:.0f} s left\n')
            last = now
        yield item


def image_problem(path: str) -> str | None:
    """What is wrong with an image file, or None. Cheap for whole JPEG and PNG files."""
    try:
        with open(path, 'rb') as stream:
            head = stream.read(8)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 12))
            tail = stream.read()
    except OSError as error:
        return error.strerror or str(error)
    if not head:
        return 'empty file'
    if head[:3] == b'\xff\xd8\xff' and tail.endswith(b'\xff\xd9'):
        return None
    if head == b'\x89PNG\r\n\x1a\n' and tail[4:8] == b'IEND':
        return None
    if head[:3] not in (b'\xff\xd8\xff', b'\x89PN') and Path(path).suffix.lower() not in (
            '.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm'):
        return None
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        return f'cannot be decoded ({error})'
    return None
