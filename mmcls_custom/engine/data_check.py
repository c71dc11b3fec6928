"""Checks data sets before a run: files exist and are whole, classes agree with annotations.

Works on any mmengine data set through its attributes; wrappers (repeat, concat, class balance,
multi-image mixing) are looked through.
"""
from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmcls_custom.engine.errors import UserError

_SHOWN = 5
_PATH_KEYS = ('img_path', 'seg_map_path')
_THREADS = 16
_PORTION = 256
# Enough to see every class of a usual set without opening it all.
_SAMPLED_LABEL_MAPS = 16


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


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets that read files, without their wrappers."""
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from leaves(part)
    elif hasattr(dataset, 'dataset'):
        yield from leaves(dataset.dataset)
    else:
        yield dataset


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


def drop_samples(dataset: Any, bad: Sequence[Sequence[int]]) -> None:
    """Take samples out of the leaves of a data set, in place; its wrappers count anew.

    Args:
        dataset: A built data set, wrapped or not.
        bad: Indices to drop, per leaf in the order of :func:`leaves`.
    """
    for leaf, indices in zip(leaves(dataset), bad, strict=True):
        if indices:
            dropped = set(indices)
            leaf.get_subset_([index for index in range(len(leaf)) if index not in dropped])
    _recount(dataset)


def _recount(dataset: Any) -> None:
    parts = getattr(dataset, 'datasets', None) or (
        [dataset.dataset] if hasattr(dataset, 'dataset') else [])
    for part in parts:
        _recount(part)
    if parts:
        dataset._fully_initialized = False
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        if hasattr(dataset, 'num_samples'):
            dataset.num_samples = len(dataset.dataset)


def check_classes(dataset: Any, where: str) -> None:
    """Compare the class list of a leaf data set with what its annotations hold.

    Args:
        dataset: A built data set.
        where: Its key path in the config, for the message.

    Raises:
        UserError: They disagree; the message is a readable difference.
    """
    classes = list((getattr(dataset, 'metainfo', None) or {}).get('classes') or [])
    if not classes:
        return
    ann_file = str(getattr(dataset, 'ann_file', '') or '')
    if ann_file.endswith('.json'):
        categories = coco_categories(ann_file)
        if categories is not None:
            compare_classes(classes, categories, where, ann_file)
    elif getattr(dataset, 'folder_to_idx', None):
        folders = list(dataset.folder_to_idx)
        # ImageNet's folders are WordNet codes while its classes are words: nothing to compare.
        if set(folders) & set(classes):
            compare_classes(classes, folders, where, 'the class folders')
    if hasattr(dataset, 'reduce_zero_label'):
        _check_label_maps(dataset, len(classes), where)


def compare_classes(config: list[str], found: list[str], where: str, source: str) -> None:
    """Raise UserError with a difference if two class lists are not the same, order included."""
    if config == found:
        return
    lines = [f'classes of {where} disagree with {source}:']
    only_config = [name for name in config if name not in found]
    only_found = [name for name in found if name not in config]
    if only_config:
        lines.append(f'  in the config only:      {_some(only_config)}')
    if only_found:
        lines.append(f'  in the annotations only: {_some(only_found)}')
    if not only_config and not only_found:
        first = next(i for i, pair in enumerate(zip(config, found, strict=False))
                     if pair[0] != pair[1])
        lines.append(f'  same names, other order from position {first}: '
                     f'config {_some(config[first:])}; annotations {_some(found[first:])}')
    lines.append("Labels follow the annotations' order, so set metainfo=dict(classes=...) of the "
                 'data set to exactly their names in their order.')
    raise UserError('\n'.join(lines))


def _some(names: Sequence[Any]) -> str:
    shown = ', '.join(str(name) for name in names[:10])
    return shown + (f', ... ({len(names)} in all)' if len(names) > 10 else '')


def coco_categories(ann_file: str) -> list[str] | None:
    """Category names of a COCO file in its order, without parsing the whole file.

    Returns None where the file has no such list.
    """
    try:
        with open(ann_file, 'rb') as stream, \
                mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            position = data.rfind(b'"categories"')
            opening = data.find(b'[', position) if position >= 0 else -1
            if opening < 0:
                return None
            window = 1 << 16
            while True:
                text = data[opening:opening + window].decode('utf-8', errors='ignore')
                try:
                    entries, _ = json.JSONDecoder().raw_decode(text)
                    break
                except json.JSONDecodeError:
                    if opening + window >= len(data):
                        return None
                    window *= 8
    except (OSError, ValueError):
        return None
    if not all(isinstance(entry, dict) and 'name' in entry for entry in entries):
        return None
    return [entry['name'] for entry in entries]


def _check_label_maps(dataset: Any, num_classes: int, where: str) -> None:
    """Look into some label maps of a segmentation set for values that are no class."""
    count = len(dataset)
    picked = sorted({round(i * (count - 1) / (_SAMPLED_LABEL_MAPS - 1))
                     for i in range(_SAMPLED_LABEL_MAPS)}) if count else []
    ignore = getattr(dataset, 'ignore_index', 255)
    label_map = getattr(dataset, 'label_map', None) or {}
    for index in picked:
        path = dataset.get_data_info(index).get('seg_map_path')
        if not path or '://' in path or not os.path.exists(path):
            continue
        try:
            with Image.open(path) as image:
                labels = np.asarray(image)
        except (OSError, SyntaxError, ValueError):
            continue  # check_files names it
        if labels.ndim != 2:
            raise UserError(f'label map is not valid: {path} of {where} has shape {labels.shape}, '
                            'expected one channel holding class numbers')
        values = {label_map.get(int(value), int(value)) for value in np.unique(labels)}
        if dataset.reduce_zero_label:
            values = {ignore if value == 0 else value - 1 for value in values - {255}}
        strange = sorted(values - set(range(num_classes)) - {ignore})
        if strange:
            raise UserError(
                f'label map is not valid: {path} of {where} holds the class numbers '
                f'{_some(strange)}{" (after reduce_zero_label)" * dataset.reduce_zero_label}, '
                f'expected 0 to {num_classes - 1} for {num_classes} classes or {ignore} to ignore; '
                'mend metainfo classes, reduce_zero_label or the label maps')


def check_dataset(dataset: Any, where: str, skip_bad: bool,
                  warn: Callable[[str], None]) -> list[list[int]]:
    """Check every leaf of a data set; changes nothing.

    Args:
        dataset: A built data set, wrapped or not.
        where: Its key path in the config, for messages.
        skip_bad: Do not raise for samples whose files are missing or damaged.
        warn: Receives a line about samples to leave out.

    Returns:
        Indices of the samples to leave out, per leaf in the order of :func:`leaves`.

    Raises:
        UserError: Files are broken (without ``skip_bad``), nothing is left, or classes disagree.
    """
    bad: list[list[int]] = []
    for leaf in leaves(dataset):
        bad.append([])
        if not hasattr(leaf, 'get_data_info'):
            continue
        if len(leaf) == 0:
            raise UserError(f'{where} is empty: no image is left after filtering, expected at '
                            'least one; check data_root, data_prefix, ann_file and filter_cfg')
        check_classes(leaf, where)
        findings = check_files(leaf)
        if not findings.bad_samples:
            continue
        summary = (f'{where}: {len(findings.bad_samples)} of {findings.total} samples have broken '
                   f'files ({len(findings.missing)} missing, {len(findings.damaged)} damaged)\n'
                   f'{findings.describe()}')
        if not skip_bad:
            raise UserError(f'{summary}\nMend them, or carry on without them: --skip-bad-images')
        if len(findings.bad_samples) == findings.total:
            raise UserError(f'{summary}\nNothing is left of the data set.')
        warn(f'skipped {summary}')
        bad[-1] = findings.bad_samples
    return bad
