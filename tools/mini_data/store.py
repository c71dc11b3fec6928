"""Set folders that are whole or absent: written aside, verified by digest, renamed at the end."""
from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdcn.errors import UserError
from mmdcn.writing import write_text
from tools.mini_data.classes import SPLITS, VERSION

MANIFEST = 'mini_data.json'
_SETS = ('coco', 'imagenet', 'ade', 'nuscenes')


@dataclass(frozen=True)
class Job:
    """One picture to draw. It depends on nothing but these four values."""

    set_name: str
    seed: int
    split: str
    index: int

    def rng(self) -> np.random.Generator:
        """The source of all choices for this picture."""
        return np.random.default_rng(
            [self.seed, _SETS.index(self.set_name), SPLITS.index(self.split), self.index])


def scaled(count: int, scale: float) -> int:
    """A number of pictures times ``scale``, at least one."""
    return max(1, round(count * scale))


def write_json(path: Path, content: dict | list, indent: int | None = None) -> None:
    """Write JSON, the same bytes every time."""
    write_text(path, json.dumps(content, indent=indent) + '\n')


def digest(folder: Path) -> tuple[int, str]:
    """Number of files below a folder and a digest of their names and contents.

    The manifest, which holds the digest, does not count.
    """
    total, count = hashlib.sha256(), 0
    for path in sorted(path for path in folder.rglob('*') if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name == MANIFEST:
            continue
        count += 1
        total.update(f'{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n'.encode())
    return count, total.hexdigest()


def _read_manifest(folder: Path) -> dict | None:
    """The manifest of a set folder, or None where there is none of ours."""
    try:
        content = json.loads((folder / MANIFEST).read_text('utf-8'))
    except (OSError, ValueError):
        return None
    ours = isinstance(content, dict) and content.get('generator') == 'make_mini_data'
    return content if ours else None


def identity(set_name: str, seed: int, scale: float) -> dict:
    """What decides the content of a set."""
    return {'generator': 'make_mini_data', 'version': VERSION, 'set': set_name,
            'seed': seed, 'scale': scale}


def check(folder: Path, wanted: dict, overwrite: bool) -> dict | None:
    """Look at the place of a set before anything is drawn.

    Returns:
        The manifest where the folder already holds exactly this set and ``overwrite`` is not
        asked for, else None: draw it.

    Raises:
        UserError: The folder holds something else and may not be replaced.
    """
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return None
    manifest = _read_manifest(folder)
    if manifest is None:
        raise UserError(str(folder), 'got files that this tool did not write', 'nothing there',
                        'choose another --root or move them away (--overwrite replaces only what '
                        'this tool wrote)')
    files, content_digest = digest(folder)
    if overwrite:
        _refuse_added_files(folder, files, manifest)
        return None
    differing = [f'{key} {manifest.get(key)} instead of {value}'
                 for key, value in wanted.items() if manifest.get(key) != value]
    if not differing and (files, content_digest) != (manifest.get('files'),
                                                     manifest.get('digest')):
        differing = ['files that were changed, added or lost since they were written']
    if not differing:
        return manifest
    raise UserError(str(folder), f'got {", ".join(differing)}',
                    remedy='add --overwrite to replace it, or choose another --root')


def _refuse_added_files(folder: Path, files: int, manifest: dict) -> None:
    """Raise UserError where a set folder holds more files than this tool wrote."""
    written = manifest.get('files')
    if not isinstance(written, int) or files > written:
        raise UserError(str(folder), f'got {files} files', f'the {written} that this tool wrote',
                        'move the others away: --overwrite would remove them')


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place at the end, or vanishes."""
    aside = folder.with_name(f'.{folder.name}.partial-{os.getpid()}')
    old = folder.with_name(f'.{folder.name}.replaced-{os.getpid()}')
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside.mkdir()
    try:
        yield aside
        if folder.exists():
            folder.rename(old)
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
