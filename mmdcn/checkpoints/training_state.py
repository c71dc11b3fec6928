"""The part of a training checkpoint beside the weights, as data that anybody can read."""
from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_HISTORY = ('log_history', 'count_history', 'max_length')


def pack_training_state(checkpoint: dict[str, Any]) -> None:
    """Make a checkpoint loadable by ``torch.load(weights_only=True)`` alone, in place.

    Log histories become dictionaries of tensors, numpy arrays lists, numpy scalars Python numbers,
    paths text and configs dictionaries. Functions of the schedules, which the config builds anew,
    are left out. ``state_dict`` and ``optimizer`` hold nothing of these.
    """
    for key in checkpoint.keys() - {'state_dict', 'ema_state_dict', 'optimizer'}:
        checkpoint[key] = _pack(checkpoint[key])


def unpack_training_state(checkpoint: dict[str, Any]) -> None:
    """Rebuild the log histories that :func:`pack_training_state` took apart, in place."""
    hub = checkpoint.get('message_hub')
    scalars = hub.get('log_scalars') if isinstance(hub, dict) else None
    for key, value in scalars.items() if isinstance(scalars, dict) else ():
        if isinstance(value, dict) and value.keys() == set(_HISTORY):
            log, counts, length = (value[part] for part in _HISTORY)
            if _is_column(log) and _is_column(counts) and log.shape == counts.shape \
                    and type(length) is int and length > 0:
                scalars[key] = HistoryBuffer(log.cpu().numpy(), counts.cpu().numpy(), length)


def _is_column(value: Any) -> bool:
    return (isinstance(value, torch.Tensor) and value.layout is torch.strided
            and value.dtype is torch.float64 and value.ndim == 1)


def _pack(value: Any) -> Any:
    if isinstance(value, HistoryBuffer):
        log, counts = (torch.from_numpy(np.array(numbers, np.float64)) for numbers in value.data)
        return {'log_history': log, 'count_history': counts, 'max_length': value.max_length}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _pack(item) for key, item in value.items() if not inspect.isroutine(item)}
    if type(value) in (list, tuple):
        return type(value)(_pack(item) for item in value)
    return value
