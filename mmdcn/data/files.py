"""Missing and cut-off files of a data set, found without decoding whole ones."""
from __future__ import annotations

import os
import stat
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import cv2
from PIL import ExifTags, Image, UnidentifiedImageError

_SHOWN = 5
_PATH_KEYS = ('img_path', 'img_path2', 'seg_map_path')
_THREADS = 16
# Whose EXIF orientation OpenCV heeds; it shows WebP as stored.
_TURNED = ('JPEG', 'MPO', 'PNG')
_PORTION = 256
# A JPEG spends at least one bit on a block of 8x8 pixels.
_PIXELS_PER_BYTE = 512

_T = TypeVar('_T')


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
    listings: dict[str, set[str] | None] = {}
    present = []
    for path, indices in samples.items():
        folder, name = os.path.split(path)
        if folder not in listings:
            listings[folder] = _listing(folder)
        # A folder that cannot be listed may still hold files that can be opened.
        if listings[folder] is None or name in listings[folder]:
            present.append(path)
        else:
            findings.missing[path] = indices[0]
    findings.damaged.update((path, problem) for path, problem
                            in map_files(image_problem, present).items() if problem)
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
        mode: PIL's name of its kind of pixels, such as ``RGB`` or ``P``.
    """

    width: int
    height: int
    orientation: int = 1
    mode: str = ''

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
        with _open(path) as stream, Image.open(stream) as image:
            exif = Image.Exif()
            # image.getexif() would decode a whole PNG to look for it.
            if image.format in _TURNED:
                exif.load(image.info.get('exif') or b'')
            orientation = exif.get(ExifTags.Base.Orientation, 1)
            return ImageHeader(*image.size, orientation if orientation in range(1, 9) else 1,
                               image.mode)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
        return None


def read_headers(paths: Sequence[str]) -> dict[str, ImageHeader | None]:
    """:func:`read_header` of many files; None also where :func:`image_problem` tells a problem."""
    return map_files(_header_or_none, paths)


def _header_or_none(path: str) -> ImageHeader | None:
    try:
        return read_header(path)
    except Image.DecompressionBombError:
        return None


def map_files(function: Callable[[str], _T], paths: Sequence[str]) -> dict[str, _T]:
    """What a function makes of each path, in threads; long work writes its progress.

    PIL's warnings of large images are silenced meanwhile.
    """
    # A task per file would hold a million futures in memory for ImageNet.
    size = max(1, min(_PORTION, len(paths) // _THREADS))
    portions = [paths[i:i + size] for i in range(0, len(paths), size)]
    found: dict[str, _T] = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        parts = pool.map(lambda portion: [function(path) for path in portion], portions)
        for portion, part in _progress(zip(portions, parts, strict=True), len(portions)):
            found.update(zip(portion, part, strict=True))
    return found


def _listing(folder: str) -> set[str] | None:
    """Names in a folder, none where it does not exist; None where it cannot be listed."""
    try:
        return set(os.listdir(folder or '.'))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError:
        return None


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


def _open(path: str) -> BinaryIO:
    """A file to read from; a pipe without a writer does not block.

    Raises:
        OSError: There is none, or it is no regular file.
    """
    stream = open(path, 'rb',  # noqa: SIM115  (the caller closes it)
                  opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError('no regular file')
    return stream


def image_problem(path: str) -> str | None:
    """What is wrong with an image file, or None. Cheap for whole JPEG and PNG files."""
    try:
        with _open(path) as stream:
            head = stream.read(24)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 12))
            tail = stream.read()
    except FileNotFoundError as error:
        return 'link to a file that does not exist' if os.path.islink(path) else error.strerror
    except OSError as error:
        return error.strerror or str(error)
    if not head:
        return 'empty file'
    limit = 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else float('inf')
    if head[:3] == b'\xff\xd8\xff' and tail.endswith(b'\xff\xd9') and \
            size * _PIXELS_PER_BYTE <= limit:
        return None
    if head[:8] == b'\x89PNG\r\n\x1a\n' and head[12:16] == b'IHDR' and tail[4:8] == b'IEND':
        width, height = struct.unpack('>II', head[16:24])
        return _too_large(f'{width}x{height}') if width * height > limit else None
    is_jpeg = head[:3] == b'\xff\xd8\xff'
    if not is_jpeg and head[:3] != b'\x89PN' and Path(path).suffix.lower() not in (
            '.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm'):
        return None
    try:
        with Image.open(path) as image:
            if not is_jpeg or not tail.endswith(b'\xff\xd9'):
                image.load()
            kind = image.format
    except Image.DecompressionBombError as error:
        return _too_large(str(error))
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        return f'cannot be decoded ({error})'
    return None if cv2.haveImageReader(path) else \
        f'holds an image of the format {kind}, which OpenCV does not read'


def _too_large(size: str) -> str:
    return f'has more pixels than the {2 * Image.MAX_IMAGE_PIXELS} that PIL opens ({size})'
