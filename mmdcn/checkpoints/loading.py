"""Reads checkpoints of any published form without running code from them."""
from __future__ import annotations

import json
import logging
import operator
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import reduce
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.logging import print_log
from safetensors import safe_open

from mmdcn.checkpoints.plain_pickles import is_plain_pickle, read_pickle
from mmdcn.checkpoints.policy import current_policy
from mmdcn.checkpoints.sizes import MalformedError, check_archive, check_tensors
from mmdcn.checkpoints.training_state import unpack_training_state
from mmdcn.checkpoints.unpickling import unpickle
from mmdcn.errors import UserError

# Where published files keep their weights, also one within another; the first that holds tensors
# wins. Averages come before the weights they are of, but for `state_dict`: OpenMMLab's files keep
# the averages there.
AVERAGED = ('model_ema', 'state_dict_ema', 'params_ema', 'ema')
WRAPPERS = ('state_dict', *AVERAGED, 'model', 'module', 'model_state_dict', 'model_state', 'params',
            'net')
# Configs as text under `meta` and `message_hub.runtime_info`: OpenMMLab runs them as Python.
_CONFIGS = ('cfg', 'config')
_GIT_LFS = b'version https://git-lfs'
_COMPILED = re.compile(r'(?:^|(?<=\.))_orig_mod\.')
# Ends of the names an index may hold.
_PARTS = ('.safetensors', '.bin', '.pth', '.pt')
_TEXT = (b'<', b'{', b'[')
# What torch says where a file needs more than its restricted unpickler offers.
_BEYOND = ('TorchScript', 'legacy .tar', 'Can only', 'unrecognized function')


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, unsafe, or belongs to another model."""


class DamagedCheckpointError(CheckpointError):
    """A file is no whole checkpoint: cut off, empty, or something else."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint holds more than tensors and plain data."""


def read_checkpoint(path: str | Path, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a local checkpoint; only tensors and plain data are unpickled, nothing is executed.

    The content decides the format, not the suffix: safetensors, its index of several files
    (``*.index.json``, read with all files it names), ``torch.save``, old forms included, or
    ``pickle.dump`` of arrays.
    The weights are the first of ``WRAPPERS`` (``state_dict``, ``model_ema``, ..., ``model``, ...)
    that holds tensors or numpy arrays, also one within another, else the file is a bare state dict;
    where a file has several, the log says which one. A leading ``module.`` and every ``_orig_mod.``
    are dropped from their names, and so are the copies ``ema_*`` that the exponential-average hook
    of mmcv 1.x keeps beside them (the ordinary names hold the averaged weights there). Arrays
    become tensors.

    Under :func:`loading_policy` with ``trust`` a file that cannot be read so is unpickled without
    restrictions, after a warning.

    Args:
        path: The file.
        map_location: Device the tensors are put on; with safetensors not a function.

    Returns:
        The checkpoint's dictionary with the weights under ``state_dict``; the header of a
        safetensors file under ``meta``. The texts of configs, which OpenMMLab would run as Python,
        are left out unless the policy trusts the file.

    Raises:
        CheckpointError: The file is missing, damaged, no checkpoint, without weights where they
            are looked for, or (then an UnsafeCheckpointError) holds objects that are not plain
            data.
    """
    path = Path(path).expanduser()
    head = _first_bytes(path)
    try:
        if path.name.endswith('.index.json'):
            content = _read_index(path, map_location)
        else:
            _refuse_other_files(path, head)
            content = _read_file(path, head, map_location)
        checkpoint = open_content(content, path)
    except CheckpointError:
        raise
    except MalformedError as error:
        raise _unreadable(path, str(error), 'it is not as torch.save writes it: get it from '
                          'another source') from error
    except Exception as error:  # a damaged or hostile file can make a parser fail in any way
        raise _damaged(path, error) from error
    return checkpoint


def open_content(content: Any, source: str | Path) -> dict[str, Any]:
    """A checkpoint of what a file holds; the configs in it, which others would run, are left out.

    Args:
        content: What was unpickled.
        source: Name of the file, for messages.

    Raises:
        CheckpointError: It is no dictionary, its ``meta`` is none, or it has no weights.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError('checkpoint', f'{source} holds a {type(content).__name__}',
                              'a dictionary of tensors')
    places = _find_places(content)
    checkpoint = unwrap(content)
    if not any(map(torch.is_tensor, checkpoint['state_dict'].values())):
        keys = [str(key)[:40] for key in content][:12]
        raise CheckpointError(
            'checkpoint', f'{source} holds no weights where they are looked for (its keys: '
            f'{", ".join(keys) or "none"})', f'tensors by name, at the top or under '
            f'{", ".join(WRAPPERS)}', 'take them out with torch.load, and save them alone')
    if len(places) > 1:
        print_log(f'{source}: the weights are those of {places[0]}, not of '
                  f'{", ".join(places[1:])}', logger='current')
    if checkpoint.get('meta') is None:
        checkpoint.pop('meta', None)
    elif not isinstance(checkpoint['meta'], Mapping):
        raise CheckpointError('checkpoint', f'the meta of {source} is a '
                              f'{type(checkpoint["meta"]).__name__}', 'a dictionary')
    if not current_policy().trust:
        hub = checkpoint.get('message_hub')
        info = hub.get('runtime_info') if isinstance(hub, dict) else None
        for part in (checkpoint.get('meta'), info):
            for key in _CONFIGS if isinstance(part, dict) else ():
                part.pop(key, None)
    unpack_training_state(checkpoint)
    return checkpoint


def unwrap(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file holds, with its weights under ``state_dict`` and their names in plain form.

    Args:
        content: Dictionary of a checkpoint, or a bare state dict.
    """
    weights = find_weights(content)
    others = {} if weights is content else content
    return {**others, 'state_dict': _plain_names(weights)}


def find_weights(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """What holds the weights: the innermost of nested wrappers, or the content itself.

    Args:
        content: Dictionary of a checkpoint, or a bare state dict.
    """
    places = _find_places(content)
    if not places:
        return next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)),
                    content)
    return reduce(operator.getitem, places[0].split('.'), content)


def _find_places(content: Mapping[str, Any]) -> list[str]:
    """Where weights are, best first, as keys joined by dots; at most one within each wrapper."""
    # Numbers alone are no weights where others are: {'ema': {'decay': 0.9}, 'model': ...}.
    return _filled_places(content, 1) or _filled_places(content, 0)


def _filled_places(content: Mapping[str, Any], ndim: int, outer: str = '',
                   depth: int = 4) -> list[str]:
    found = []
    for key in WRAPPERS if depth else ():  # bounded: a file can be made to hold itself
        part = content.get(key)
        if isinstance(part, Mapping):
            filled = any(_is_weight(value) and value.ndim >= ndim for value in part.values())
            inner = [f'{outer}{key}'] if filled else \
                _filled_places(part, ndim, f'{outer}{key}.', depth - 1)
            found += inner[:1]
    return found


def _is_weight(value: Any) -> bool:
    return torch.is_tensor(value) or (isinstance(value, np.ndarray) and value.dtype.kind in 'biuf')


def plain_name(key: str) -> str:
    """The name of a weight without the prefixes of distributed training and compilation."""
    return _COMPILED.sub('', key).removeprefix('module.')


def plain_value(value: Any) -> Any:
    """A weight as a tensor, if it is one as an array; anything else as it is."""
    if not isinstance(value, np.ndarray) or not _is_weight(value):
        return value
    return torch.from_numpy(np.array(value, value.dtype.newbyteorder('='), order='C'))


def _plain_names(weights: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Weights without the prefix of distributed training and without mmcv 1.x's averages."""
    names = [key for key in weights if isinstance(key, str)]
    averages = {'ema_' + plain_name(key).replace('.', '_') for key in names}
    plain = OrderedDict((plain_name(key), plain_value(weights[key])) for key in names
                        if key not in averages)
    versions = getattr(weights, '_metadata', None)
    if isinstance(versions, Mapping):  # the versions of the modules, which their loading asks for
        plain._metadata = {plain_name(key): {'version': value['version']}
                           for key, value in versions.items()
                           if isinstance(key, str) and isinstance(value, Mapping)
                           and isinstance(value.get('version'), int)}
    return plain


def _first_bytes(path: Path) -> bytes:
    """The beginning of a file, or an error that says why there is none."""
    if path.is_dir():
        files = sorted(entry.name for entry in path.iterdir()
                       if entry.suffix in ('.pth', '.pt', '.safetensors', '.bin', '.json'))
        hint = f'name one of its files: {", ".join(files[:8])}' if files else 'check the path'
        raise CheckpointError('checkpoint', f'{path} is a folder', 'a file', hint)
    if not path.is_file():
        raise CheckpointError('checkpoint', f'got {path}', 'an existing file', 'check the path')
    try:
        with path.open('rb') as file:
            return file.read(1024)
    except OSError as error:
        raise _damaged(path, error) from error


def _refuse_other_files(path: Path, head: bytes) -> None:
    """Name what a file is that people mistake for a checkpoint."""
    if not head:
        found, remedy = 'it is empty', 'copy or download it again'
    elif head.startswith(_GIT_LFS):
        found = 'it is a Git LFS pointer, not the file itself'
        remedy = 'fetch the file with: git lfs pull'
    elif head.lstrip().startswith(_TEXT):
        found = 'it is text, perhaps a web page saved in its place'
        remedy = 'open it to see what the server said, and download it again'
    elif head.startswith(b'\x1f\x8b'):
        found, remedy = 'it is compressed', 'unpack it first (gunzip)'
    else:
        return
    raise _unreadable(path, found, remedy)


def _read_file(path: Path, head: bytes, map_location: Any) -> Any:
    """The content of one file."""
    if head[8:9] == b'{' or (path.suffix == '.safetensors' and not head.startswith(b'PK')):
        return _read_safetensors(path, map_location)
    with path.open('rb') as file:  # given a name, torch goes by the suffix
        return read_torch(file, path, map_location)


def _read_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    device = str(map_location) if isinstance(map_location, str | torch.device) else 'cpu'
    with safe_open(path, framework='pt', device=device) as file:
        meta = {key: _from_json(text) for key, text in (file.metadata() or {}).items()}
        names = file.keys()
        return {'meta': meta, 'state_dict': {key: file.get_tensor(key) for key in names}}


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read_index(path: Path, map_location: Any) -> dict[str, Any]:
    """The weights of all files that an index names; they lie in the same folder."""
    content = json.loads(path.read_bytes())
    places = content.get('weight_map') if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError('checkpoint', f'{path} has no weight_map',
                              'the index of a checkpoint in several files')
    state: dict[str, torch.Tensor] = {}
    for name in sorted(set(places.values())):
        if PureWindowsPath(name).name != name or not name.endswith(_PARTS):
            raise CheckpointError('checkpoint', f'{path} names {name}',
                                  'weight files in its own folder')
        state.update(read_checkpoint(path.with_name(name), map_location)['state_dict'])
    lost = [key for key in places if plain_name(key) not in state]
    if lost:
        raise CheckpointError(
            'checkpoint', f'{path} names {lost[0]} in {places[lost[0]]}, which lacks it',
            remedy='download the files again')
    return {'meta': content.get('metadata') or {}, 'state_dict': state}


def read_torch(file: BinaryIO, source: str | Path, map_location: Any = 'cpu') -> Any:
    """The object in an open file of ``torch.save``, safely unless the policy trusts it.

    Args:
        file: Binary file that can be rewound.
        source: Its name, for messages.
        map_location: Device the tensors are put on.

    Raises:
        UnsafeCheckpointError: It holds more than tensors and plain data.
    """
    is_plain = is_plain_pickle(file)
    try:
        if is_plain:
            return read_pickle(file)
        check_archive(file)
        content = unpickle(file, map_location)
        check_tensors(content, file)
        return content
    except Exception as error:
        if current_policy().trust:
            print_log(f'`trust=True`: {source} is unpickled without restrictions and can '
                      'run any code', logger='current', level=logging.WARNING)
            file.seek(0)
            return pickle.load(file, encoding='latin1') if is_plain else torch.load(
                file, map_location=map_location, weights_only=False)
        cut_off = _is_cut_off(file, is_plain)  # within the name of a class, perhaps
        reason = '' if cut_off else _beyond_plain_data(error)
        if reason:
            raise UnsafeCheckpointError(
                'checkpoint', f'{source} holds {reason}', 'tensors and plain data only',
                'it was not executed. Get it from a source that saves the state dict alone or '
                'safetensors. `trust=True` loads it all the same: such a file can run any code on '
                'this machine, so only if you trust whoever made it') from error
        raise


def _is_cut_off(file: BinaryIO, is_plain: bool) -> bool:
    """Whether the end of a file that is no archive may be what was amiss."""
    if is_plain:  # whole ones end with the opcode that says so
        file.seek(-1, os.SEEK_END)
        return file.read(1) != pickle.STOP
    at_end = not file.read(1)
    file.seek(0)
    return at_end and file.read(2) != b'PK'


def _beyond_plain_data(error: Exception) -> str:
    """What a file holds that is not plain data; empty where it is just damaged."""
    text = str(error)
    found = re.search(r'(?:GLOBAL|global) (\S+)', text)
    if isinstance(error, pickle.UnpicklingError) and found:
        return f'an object of type {found.group(1).rstrip(".")}'
    if isinstance(error, pickle.UnpicklingError | RuntimeError):
        cause = next((line for line in text.splitlines() if any(part in line for part in _BEYOND)),
                     None)
        if cause:
            return f'instructions beyond plain data ({cause.strip()})'
    return ''


def _damaged(path: Path, error: Exception) -> DamagedCheckpointError:
    """The error for a file at which a parser failed."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[0].split('. ')[0]
    if operand := re.search(r'Unsupported operand \d+', str(error)):  # a byte of a pickle
        return _unreadable(path, operand.group(), 'it is damaged, or was written with another '
                           'pickle_protocol than the 2 of torch.save: save it anew')
    return _unreadable(path, reason, 'it may be cut off: copy or download it again')


def _unreadable(path: Path, reason: str, remedy: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(
        'checkpoint', f'{path} ({path.stat().st_size} bytes) cannot be read ({reason})',
        'a file of torch.save or safetensors', remedy)
