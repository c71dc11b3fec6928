"""What a checkpoint says of its classes: names and colours, looked at before they are used."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmdcn.checkpoints.loading import CheckpointError

_NAMES = ('classes', 'thing_classes', 'stuff_classes')
_MOST = 2 ** 17
_LONGEST = 1000


def read_dataset_meta(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Names of classes and their colours as a checkpoint has them.

    Args:
        checkpoint: What :func:`mmdcn.checkpoints.read_checkpoint` gave.
        source: Name of the file, for messages.

    Returns:
        ``classes`` (also ``thing_classes``, ``stuff_classes``), tuples of text, and ``palette``,
        red, green and blue of each class, those of them that the file has. A palette shorter than
        the classes, and what else the file says, are left out.

    Raises:
        CheckpointError: One of them is something else.
    """
    meta = checkpoint.get('meta') or {}
    found = meta.get('dataset_meta')
    if found is None:  # files of mmdet 2.x and its kin
        found = {name.lower(): meta[name] for name in ('CLASSES', 'PALETTE') if name in meta}
    if not isinstance(found, Mapping):
        raise _error('dataset_meta', source, found, 'a dictionary')
    kept: dict[str, Any] = {}
    for name in _NAMES:
        value = found.get(name)
        if value is not None:
            kept[name] = _texts(name, value, source)
    palette = _colours(found.get('palette'), source)
    if palette is not None and len(palette) >= len(kept.get('classes', ())):
        kept['palette'] = palette
    return kept


def _texts(name: str, value: Any, source: str) -> tuple[str, ...]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) > _MOST \
            or not all(isinstance(item, str) and len(item) <= _LONGEST for item in value):
        raise _error(name, source, value, f'a list of at most {_MOST} names')
    return tuple(value)


def _colours(value: Any, source: str) -> list[tuple[int, ...]] | None:
    if value is None or isinstance(value, str):  # the name of one: drawing has its own
        return None
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) > _MOST \
            or not all(_is_colour(item) for item in value):
        raise _error('palette', source, value,
                     f'a list of at most {_MOST} colours, red, green and blue from 0 to 255')
    return [tuple(map(int, item)) for item in value]


def _is_colour(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(
        isinstance(part, int | np.integer) and 0 <= part <= 255 for part in value)


def _error(name: str, source: str, value: Any, expected: str) -> CheckpointError:
    size = f' of {len(value)}' if isinstance(value, list | tuple | Mapping) else ''
    return CheckpointError('checkpoint', f'the {name} of {source} is a '
                           f'{type(value).__name__}{size}', expected,
                           'take the meta out of it with torch.load and torch.save')
