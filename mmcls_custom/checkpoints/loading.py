"""Reads checkpoints without running code from them and reports how they fit a model."""
from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import nn

# Module-list wrappers of distributed training and of exponential averages add this prefix.
_PREFIX = re.compile(r'^module\.')
_SHOWN = 8


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, unsafe, or belongs to another model."""


@dataclass
class MatchReport:
    """How the tensors of a checkpoint meet those of a model (names are model keys)."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Share of the model's tensors that the checkpoint fills, 0 to 1."""
        wanted = len(self.loaded) + len(self.missing) + len(self.resized)
        return len(self.loaded) / wanted if wanted else 1.0

    def __str__(self) -> str:
        shapes = [f'{key} (checkpoint {tuple(got)}, model {tuple(want)})'
                  for key, (got, want) in self.resized.items()]
        return '\n'.join([
            f'  loaded:     {len(self.loaded)}',
            f'  missing:    {_names(self.missing)}',
            f'  unexpected: {_names(self.unexpected)}',
            f'  resized:    {_names(shapes)}',
            f'  ratio:      {self.ratio:.1%} of the tensors of the model',
        ])


def _names(names: list[str]) -> str:
    """Count and the first few names, for a person to read."""
    if not names:
        return '0'
    more = f', and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return f'{len(names)}: {", ".join(names[:_SHOWN])}{more}'


def _history_method(owner: type, name: str) -> Any:
    """Stands in for ``getattr``, which log histories need for their own statistics only."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError('GLOBAL builtins.getattr is not allowed')
    return getattr(owner, name)


def _safe_globals() -> list[Any]:
    """What a training checkpoint holds beside tensors: log histories, kept as numpy arrays."""
    numbers = [np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_]
    return [
        HistoryBuffer, (_history_method, 'builtins.getattr'), np.ndarray, np.dtype,
        np._core.multiarray._reconstruct, np._core.multiarray.scalar,
        *(type(np.dtype(number)) for number in numbers),
    ]


def read_checkpoint(path: str | Path, map_location: str = 'cpu') -> dict[str, Any]:
    """Read a local checkpoint; only tensors and plain data are unpickled, nothing is executed.

    Args:
        path: File written by ``torch.save``.
        map_location: Device the tensors are put on.

    Returns:
        The checkpoint's dictionary, or ``{'state_dict': ...}`` if the file is a bare state dict.

    Raises:
        CheckpointError: The file is missing, damaged, or holds objects that are not plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'checkpoint is not valid: got {path}, expected an existing file; '
                              'check the path')
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r'(?:GLOBAL|global) ([\w.]+)', str(error))
        if found is None:
            raise _damaged(path, error) from error
        raise CheckpointError(
            f'checkpoint is not valid: {path} holds an object of type {found.group(1)}, expected '
            'tensors and plain data only; it was not executed. Save its state dict alone, or get '
            'the file from a source that does') from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise _damaged(path, error) from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'checkpoint is not valid: {path} holds a '
                              f'{type(checkpoint).__name__}, expected a dictionary of tensors')
    if 'state_dict' in checkpoint:
        return dict(checkpoint)
    if 'model' in checkpoint and isinstance(checkpoint['model'], Mapping):
        return {**checkpoint, 'state_dict': checkpoint['model']}
    return {'state_dict': checkpoint}


@CheckpointLoader.register_scheme(prefixes='', force=True)
def _read_for_mmengine(filename: str, map_location: str | None) -> dict[str, Any]:
    """Local files that models name themselves (``init_cfg``) go the same safe way."""
    return read_checkpoint(filename, map_location or 'cpu')


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return CheckpointError(
        f'checkpoint is not valid: {path} ({path.stat().st_size} bytes) cannot be read ({reason}), '
        'expected a file written by torch.save; it may be cut off: copy or download it again')


def load_state_dict(model: nn.Module, state_dict: Mapping[str, torch.Tensor], *,
                    source: str, min_ratio: float = 0.99) -> MatchReport:
    """Copy the tensors that fit into the model, after checking that enough of them fit.

    Args:
        model: The model, not wrapped for distributed training.
        state_dict: Tensors by name; a leading ``module.`` is dropped.
        source: Name of the checkpoint, for the message.
        min_ratio: Least share of the model's tensors that must be filled.

    Returns:
        What was loaded, missing, unexpected and of another shape.

    Raises:
        CheckpointError: Fewer than ``min_ratio`` match; the model is unchanged.
    """
    incoming = {_PREFIX.sub('', key): value for key, value in state_dict.items()
                if isinstance(value, torch.Tensor)}
    wanted = model.state_dict()
    report = MatchReport(unexpected=[key for key in incoming if key not in wanted])
    for key, value in wanted.items():
        if key not in incoming:
            report.missing.append(key)
        elif incoming[key].shape != value.shape:
            report.resized[key] = (tuple(incoming[key].shape), tuple(value.shape))
        else:
            report.loaded.append(key)
    if report.ratio < min_ratio:
        raise CheckpointError(
            f'checkpoint does not fit the model: got {source}, expected at least '
            f'{min_ratio:.0%} of the tensors of {type(model).__name__}; '
            f'use the config it was trained with\n{report}')
    model.load_state_dict({key: incoming[key] for key in report.loaded}, strict=False)
    return report
