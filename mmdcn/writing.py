"""Files that are whole or not there: written beside their place, synced, then renamed."""
from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PART = re.compile(r'\..*\.\d+\.part(\.\w+)?')


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A name to write to that becomes ``path`` when the block ends, or vanishes if it fails.

    The name lies in the same folder and ends like ``path``, as writers go by the suffix. A reader,
    or whoever comes after a kill, finds the old file or the new one, never a part.

    Args:
        path: File to write; its folder is made where absent.

    Raises:
        OSError: The disk is full or the folder cannot be written; ``path`` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.stem[:80]}.{os.getpid()}.part{path.suffix}')
    try:
        yield part
        with part.open('rb') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8) as :func:`whole_file` does."""
    with whole_file(path) as part:
        part.write_text(text, encoding='utf-8')


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk; nothing to do on systems that cannot."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems sync no folders
        pass
    finally:
        os.close(handle)


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left of files that :func:`whole_file` was writing there."""
    for path in folder.glob('.*.part*'):
        if _PART.fullmatch(path.name):
            path.unlink(missing_ok=True)
