"""Writes checkpoints that anybody can read without running code from them."""
from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mmdcn.checkpoints.loading import CheckpointError
from mmdcn.writing import whole_file

_PLAIN = (str, int, float, bool, type(None))


def save_checkpoint(path: str | Path, state_dict: Mapping[str, torch.Tensor],
                    meta: Mapping[str, Any] | None = None) -> None:
    """Write weights and what is to be known about them; the suffix decides the format.

    ``.safetensors`` keeps each entry of ``meta`` as JSON text in the file's header; ``.pth`` and
    ``.pt`` hold ``{'meta': ..., 'state_dict': ...}`` and load with ``weights_only=True``. The file
    appears under its name only when it is complete.

    Args:
        path: File to write; its folder is made where absent.
        state_dict: Tensors by name. They are written from the CPU, without gradients.
        meta: Text, numbers, booleans, None, and lists and dictionaries of these.

    Raises:
        CheckpointError: Another suffix, a value that is no tensor, or ``meta`` that is not plain.
    """
    path = Path(path)
    if path.suffix not in ('.safetensors', '.pth', '.pt'):
        raise CheckpointError('path', f'got {path}',
                              'a name that ends in .safetensors, .pth or .pt')
    wrong = [key for key, value in state_dict.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise CheckpointError(
            'state_dict', f'{wrong[0]} is a {type(state_dict[wrong[0]]).__name__}',
            'tensors only')
    # A clone of its own for each: views of one storage would be written whole, or be refused.
    tensors = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
               for key, value in state_dict.items()}
    meta = {key: _plain(value, f'meta[{key!r}]') for key, value in (meta or {}).items()}
    with whole_file(path) as part:
        if path.suffix == '.safetensors':
            texts = {key: json.dumps(value) for key, value in meta.items()}
            save_file(tensors, part, metadata={**texts, 'format': 'pt'})
        else:
            torch.save({'meta': meta, 'state_dict': tensors}, part)


def _plain(value: Any, name: str) -> Any:
    """The same value made of exact builtin types, or an error that names the odd one out."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f'{name}[{key!r}]') for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f'{name}[{i}]') for i, item in enumerate(value)]
    raise CheckpointError(name, f'got a {type(value).__name__}', 'text, numbers, booleans, None, '
                          'lists or dictionaries of these')
