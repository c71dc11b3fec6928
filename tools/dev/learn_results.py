"""What trainings of ``learn.py`` reached, and whether what they depend on is still the same.

A result stands for the contents of all that its training reads: the resolved config, the source
files that ``tools/train.py`` and ``tools/test.py`` import for it, the operators' C++, the data set
and the versions of the frameworks. Digests of these are kept with it, so a fresh clone, whatever
its history, can tell whether the result is still true. Gates, documents and plug-ins of other
tasks are none of this.
"""
from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from mmengine.config import Config

from mmdcn import writing
from mmdcn.apis.config import load_config
from mmdcn.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ('tools/train.py', 'tools/test.py')
# Without influence on what a training reaches: the command line, of which a digest holds what it
# leads to, the config, and what these programs import for single images, which they do not have,
# and for pictures, which these trainings do not ask for.
NOT_REACHED = ('mmdcn/apis/cli.py', 'mmdcn/apis/drawing.py', 'mmdcn/apis/inference.py')
NOT_ASKED_FOR = ('tta_model', 'tta_pipeline')  # parts of a config that only --tta reads
FRAMEWORKS = ('torch', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmengine', 'onedl-mmpretrain',
              'onedl-mmsegmentation')
FRAMEWORKS_3D = (*FRAMEWORKS, 'mmdet3d', 'nuscenes-devkit')


@dataclass(frozen=True)
class Outcome:
    """What one training reached: metrics by name, its length and how long it took."""

    metrics: dict[str, float]
    iterations: int
    minutes: float


@dataclass(frozen=True)
class Record:
    """An outcome with the digests of what it depends on, and where and when it came about.

    Attributes:
        outcome: What was reached.
        digests: Digest of each part, see :func:`digests`.
        commit: Short name of the commit, ending in ``+`` where files that the training reads
            differed from it; ``none`` outside a git checkout.
        machine: Processor, number of cores, torch.
        date: Day it ended, UTC.
    """

    outcome: Outcome
    digests: dict[str, str]
    commit: str
    machine: str
    date: str


def source_files(modules: Iterable[str], root: Path = ROOT) -> list[Path]:
    """Files of this project that the programs and some modules import, directly or through others.

    Imports inside functions count, but for ``NOT_REACHED``. Where a package is imported, so is the
    ``__init__`` of each package above it; a string that names a module is not an import, except in
    ``modules``.

    Args:
        modules: Dotted names to begin with beside ``PROGRAMS``, a config's ``custom_imports``.
        root: Folder of the project.

    Returns:
        Sorted paths; all sources of the operators are among them where ``ops_dcn`` is.
    """
    found: set[Path] = set()
    waiting = [root / name for name in PROGRAMS]
    waiting += [path for name in modules for path in _files_of(name, root)]
    while waiting:
        path = waiting.pop()
        if path in found or path.relative_to(root).as_posix() in NOT_REACHED:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            for name in _imported(node):
                waiting.extend(_files_of(name, root))
    if any(root / 'ops_dcn' in path.parents for path in found):
        found |= {path for path in (root / 'ops_dcn' / 'csrc').rglob('*')
                  if path.suffix in ('.cpp', '.h', '.cu', '.cuh')} | {root / 'setup.py'}
    return sorted(found)


def _imported(node: ast.AST) -> list[str]:
    """Dotted names that an import may load; the project imports by absolute names only."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f'{node.module}.{alias.name}' for alias in node.names)]
    return []


def _files_of(name: str, root: Path) -> list[Path]:
    """Files of this project that importing a dotted name runs; none where it is another's."""
    files, folder = [], root
    for part in name.split('.'):
        for path in (folder / f'{part}.py', folder / part / '__init__.py'):
            if path.is_file():
                files.append(path)
        folder /= part
    return files


def digests(config: str, options: Sequence[str] = ()) -> dict[str, str]:
    """Digests of all that a training depends on.

    Args:
        config: Config file.
        options: ``KEY=VALUE`` options of the training.

    Returns:
        Digests named ``config``, ``code``, ``data`` and ``frameworks``.

    Raises:
        UserError: The data set is absent or was not made by ``tools/make_mini_data.py``.
    """
    cfg = load_config(str(ROOT / config), list(options))
    read = {key: value for key, value in cfg.to_dict().items() if key not in NOT_ASKED_FOR}
    frameworks = FRAMEWORKS_3D if cfg.default_scope == 'mmdet3d' else FRAMEWORKS
    versions = {name: metadata.version(name).partition('+')[0] for name in frameworks}
    return {
        'config': _digest(json.dumps(read, sort_keys=True, default=str)),
        'code': _digest(*(f'{path.relative_to(ROOT)}\n{path.read_text()}'
                          for path in _sources_of(cfg))),
        'data': _data_digest(cfg),
        'frameworks': _digest(json.dumps(versions, sort_keys=True))}


def _sources_of(cfg: Config) -> list[Path]:
    """Source files that a config's training reads."""
    return source_files((cfg.get('custom_imports') or {}).get('imports', ()))


def _data_digest(cfg: Config) -> str:
    """Digest of the set that a config trains on, as its manifest has it."""
    manifest = Path(cfg.train_dataloader.dataset.data_root) / 'mini_data.json'
    try:
        return json.loads((ROOT / manifest).read_text())['digest'][:16]
    except (OSError, ValueError, KeyError) as error:
        raise UserError('data', f'{manifest} cannot be read: {error}',
                        remedy='make data') from error


def _digest(*texts: str) -> str:
    """First 16 hexadecimal digits of SHA-256 over texts, each with its length."""
    total = hashlib.sha256()
    for text in texts:
        data = text.encode()
        total.update(f'{len(data)}\n'.encode() + data)
    return total.hexdigest()[:16]


def current_commit(config: str) -> str:
    """Short name of the commit, with a ``+`` where files that a training reads differ from it."""
    cfg = load_config(str(ROOT / config))
    paths = ['configs', *(str(path.relative_to(ROOT)) for path in _sources_of(cfg))]
    try:
        head = _git('rev-parse', '--short', 'HEAD')
        return head + ('+' if _git('status', '--porcelain', '--', *paths) else '')
    except (OSError, subprocess.CalledProcessError):
        return 'none'


def _git(*words: str) -> str:
    return subprocess.run(['git', *words], cwd=ROOT, capture_output=True, text=True,
                          check=True).stdout.strip()


def machine() -> str:
    """Processor, number of cores and torch of this machine."""
    lines = Path('/proc/cpuinfo')
    names = [line.partition(':')[2].strip() for line in
             (lines.read_text().splitlines() if lines.is_file() else ())
             if line.startswith('model name')]
    return (f'{names[0] if names else platform.processor() or platform.machine()}, '
            f'{os.cpu_count()} cores, torch {metadata.version("torch").partition("+")[0]}')


def today() -> str:
    """Date in UTC."""
    return datetime.now(timezone.utc).date().isoformat()


def read_records(path: Path) -> dict[str, Record]:
    """Records by name of the training; none where there is no file.

    Raises:
        UserError: The file is not what :func:`write_records` writes.
    """
    if not path.is_file():
        return {}
    try:
        return {name: Record(**{**row, 'outcome': Outcome(**row['outcome'])})
                for name, row in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError('results', f'{path}: {type(error).__name__}: {error}',
                        'what this tool writes', 'delete it to train everything again') from error


def write_records(path: Path, records: dict[str, Record]) -> None:
    """Write all records, sorted by name, so that a version control shows what changed."""
    rows = {name: asdict(record) for name, record in records.items()}
    writing.write_text(path, json.dumps(rows, indent=1, sort_keys=True) + '\n')


def changed(record: Record, now: dict[str, str]) -> list[str]:
    """Names of the parts that differ from what a record depends on."""
    return sorted(name for name in record.digests.keys() | now.keys()
                  if record.digests.get(name) != now.get(name))
