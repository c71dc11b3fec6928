"""Sends every way in which OpenMMLab reaches a checkpoint through the safe loader.

mmengine unpickles without restrictions what it downloads, and falls back to that for local files.
"""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn

from mmdcn.checkpoints.loading import (
    CheckpointError,
    open_content,
    read_checkpoint,
    read_torch,
)
from mmdcn.checkpoints.matching import load_state_dict


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Local files that models name themselves; mmengine logs the end of this function's name."""
    return read_checkpoint(filename, map_location or 'cpu')


def _read_any(file: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
    """Files and buffers that mmengine's other schemes have fetched."""
    if isinstance(file, str | os.PathLike):
        return load_from_local(os.fspath(file), map_location)
    source = 'a fetched checkpoint'
    return open_content(read_torch(file, source, map_location or 'cpu'), source)


def _download(url: str, model_dir: str | None = None, map_location: Any = None,
              progress: bool = True) -> dict[str, Any]:
    """The checkpoint at an address, kept in torch's cache of checkpoints."""
    folder = Path(model_dir or Path(torch.hub.get_dir()) / 'checkpoints')
    file = folder / Path(url.split('?')[0]).name
    if not file.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), None, progress=progress)
        except OSError as error:
            raise CheckpointError(
                'checkpoint', f'{url} cannot be downloaded to {folder} ({error})',
                remedy='download it by hand and name the file') from error
    return read_checkpoint(file, map_location or 'cpu')


# Every other scheme (http, torchvision, open-mmlab, mmcls, ...) calls one of these two by name.
mmengine_checkpoint.load_url = _download
mmengine_checkpoint._safe_torch_load = _read_any


@WEIGHT_INITIALIZERS.register_module(name='Pretrained', force=True)
class CheckedPretrainedInit(PretrainedInit):
    """``init_cfg=dict(type='Pretrained', checkpoint=FILE[, prefix='backbone.'])`` of any module.

    As mmengine's, but the file is read safely, 99 % of the module's tensors must be filled
    (:func:`loading_policy` can say otherwise), and the report is logged.

    Args:
        checkpoint: File or address.
        prefix: Take the names that start with this only; None finds a prefix that fits.
        map_location: Device the tensors are put on before they are copied.
        skip: Parts of names; tensors of the file whose name has one are not taken, to start
            afresh, for example, from the relative positions that a file holds.
    """

    def __init__(self, checkpoint: str, prefix: str | None = None, map_location: Any = 'cpu',
                 skip: Sequence[str] = ()) -> None:
        super().__init__(checkpoint, prefix, map_location)
        if isinstance(skip, str):
            raise ValueError(f'skip is not valid: got {skip!r}, expected a list of parts of names')
        self.skip = tuple(skip)

    def __call__(self, module: nn.Module) -> None:
        """Fill the module.

        Raises:
            CheckpointError: The file cannot be read safely or does not fit, or a part of names
                to skip is in none of them.
        """
        checkpoint = CheckpointLoader.load_checkpoint(self.checkpoint, self.map_location)
        tensors = checkpoint['state_dict']
        if unused := [part for part in self.skip if not any(part in name for name in tensors)]:
            raise CheckpointError('skip', f'{self.checkpoint} has no name with {unused}',
                                  remedy='drop it')
        if self.skip:
            tensors = {name: value for name, value in tensors.items()
                       if not any(part in name for part in self.skip)}
        load_state_dict(module, tensors, source=self.checkpoint, prefix=self.prefix)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())
