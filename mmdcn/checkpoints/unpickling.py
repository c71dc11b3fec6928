"""Unpickles files of ``torch.save``: tensors, plain data and an explicit list of harmless classes.

Every class of the list that is not torch's own is replaced by a stand-in that stores data and
nothing else. numpy's own classes are not safe here: the state of a pickled ``numpy.dtype`` may
claim that plain bytes are object pointers, and a log history puts functions into its class.

What torch allows can fill the memory from a file of a few bytes: ``set(torch.Tensor(10 ** 9))``.
So containers take over only what the file spells out, and tensors are made from storages alone.
"""
from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import _weights_only_unpickler

_NUMBERS_AND_TEXT = re.compile(r'[biufcSU]\d{1,6}')


def refuse(what: str) -> pickle.UnpicklingError:
    """The error for what is no plain data."""
    return pickle.UnpicklingError(f'GLOBAL {what} is not allowed')


class _DType:
    """Stands in for ``numpy.dtype``: numbers and text only."""

    def __init__(self, code: str, *_: Any) -> None:
        if not _NUMBERS_AND_TEXT.fullmatch(code):
            raise refuse(f'numpy.dtype({code})')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for ``numpy.ndarray`` until :func:`settle` takes its value out."""

    __hash__ = None
    value: np.ndarray

    def __init__(self, *_: Any) -> None:
        """Take the arguments of numpy's constructor, which do not matter: the state does."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_column, raw = state
        if isinstance(raw, str):  # of Python 2
            raw = raw.encode('latin1')
        if not isinstance(raw, bytes):
            raise refuse('numpy.ndarray of objects')
        if any(size < 0 for size in shape):
            raise ValueError(f'an array of shape {shape}')
        flat = np.frombuffer(raw, dtype.dtype) if raw else np.empty(0, dtype.dtype)
        self.value = flat.reshape(shape, order='F' if by_column else 'C').copy()


class _History:
    """Stands in for mmengine's log history until :func:`settle` builds one of its numbers."""

    __hash__ = None
    state: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def build(self) -> HistoryBuffer:
        log, counts = (settle(self.state[key]) for key in ('_log_history', '_count_history'))
        return HistoryBuffer(log, counts, int(self.state['max_length']))


class _Dict:
    """Stands in for subclasses of dict with attributes: their items become a plain dict."""

    def __new__(cls, items: dict[Any, Any] | None = None, *_: Any) -> Any:
        return OrderedDict(items if isinstance(items, dict) else {})


def _from_buffer(raw: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    """Stands in for what rebuilds numpy's arrays in protocol 5."""
    array = _Array()
    array.__setstate__((1, shape, dtype, order == 'F', bytes(raw)))
    return array


def _scalar(dtype: _DType, raw: bytes | str) -> Any:
    """Stands in for numpy's scalar constructor."""
    raw = raw.encode('latin1') if isinstance(raw, str) else raw
    if not isinstance(raw, bytes):
        raise refuse('numpy.object_')
    return np.frombuffer(raw, dtype.dtype, count=1)[0]


def _history_method(owner: type, name: str) -> str:
    """Stands in for ``getattr``, by which log histories name their own statistics."""
    if owner is not _History or name not in ('min', 'max', 'mean', 'current'):
        raise refuse('builtins.getattr')
    return name


def _path_text(*parts: str) -> str:
    """Stands in for the classes of pathlib."""
    if sum(map(len, parts)) > 2 ** 15:  # joined with itself again and again it fills the memory
        raise refuse('pathlib.Path of this length')
    return '/'.join(parts).replace('//', '/')


def _plain_dict(*_: Any) -> dict[Any, Any]:
    """Stands in for ``collections.defaultdict``, whose factory is a callable."""
    return {}


def _spelled_out(kind: type) -> Callable[..., Any]:
    """Stands in for a class of containers: takes what was read already, and counts nothing out."""
    def build(*items: Any) -> Any:
        if not all(type(part) in (list, tuple, dict, OrderedDict, set, frozenset)
                   for part in items):
            raise refuse(f'builtins.{kind.__name__} of {type(items[0]).__name__}')
        return kind(*items)

    return build


def _bytes(*parts: Any) -> bytes:
    """Stands in for ``bytes`` and ``bytearray``, which pickles make of text or of bytes."""
    if parts and not isinstance(parts[0], str | bytes):
        raise refuse(f'builtins.bytes of {type(parts[0]).__name__}')
    return b'' if not parts else parts[0] if isinstance(parts[0], bytes) else _encode(*parts)


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """Stands in for ``codecs.encode``, by which pickles spell bytes."""
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise refuse('_codecs.encode')
    return text.encode('latin1')


def _from_type(build: Callable[..., Any], kind: type, arguments: tuple[Any, ...], _: Any) -> Any:
    """Stands in for what rebuilds tensors with attributes; these are left out."""
    if build not in _REBUILD:
        raise refuse(f'torch._tensor._rebuild_from_type_v2 of {build}')
    return build(*arguments)


_NUMPY = [f'numpy.{core}.multiarray' for core in ('core', '_core')]
_DICTS = ('yacs.config.CfgNode', 'mmcv.utils.config.ConfigDict', 'addict.addict.Dict',
          'mmengine.config.config.ConfigDict', 'easydict.EasyDict')
_PATHS = [f'{module}.{kind}' for module in ('pathlib', 'pathlib._local')
          for kind in ('PosixPath', 'WindowsPath', 'PurePosixPath', 'PureWindowsPath')]
_ALLOWED: list[tuple[Callable[..., Any], str]] = [
    (argparse.Namespace, 'argparse.Namespace'),
    (_History, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_history_method, 'builtins.getattr'),
    (_Array, 'numpy.ndarray'), (_DType, 'numpy.dtype'),
    *((_Array, f'{module}._reconstruct') for module in _NUMPY),
    *((_scalar, f'{module}.scalar') for module in _NUMPY),
    *((_Dict, name) for name in _DICTS),
    *((_path_text, name) for name in _PATHS),
    (_plain_dict, 'collections.defaultdict'),
    *((_spelled_out(kind), f'builtins.{kind.__name__}') for kind in (dict, list, frozenset)),
    *((kind, f'builtins.{kind.__name__}') for kind in (int, float, slice)),
    (_bytes, 'builtins.bytes'),
]
_REBUILD = (torch._utils._rebuild_parameter, torch._utils._rebuild_parameter_with_state,
            torch._utils._rebuild_qtensor, torch._utils._rebuild_tensor,
            torch._utils._rebuild_tensor_v2, torch._utils._rebuild_tensor_v3,
            torch._utils._rebuild_sparse_tensor, torch._utils._rebuild_nested_tensor,
            torch._utils._rebuild_meta_tensor_no_storage)


# What a pickle without tensors needs, and which of it takes a state.
STAND_INS = [
    *((build, name) for build, name in _ALLOWED if build is not argparse.Namespace),
    *((_from_buffer, f'numpy.{core}.numeric._frombuffer') for core in ('core', '_core')),
    (_encode, '_codecs.encode'), (_bytes, 'builtins.bytearray'),
    (_spelled_out(OrderedDict), 'collections.OrderedDict'), (_spelled_out(set), 'builtins.set')]
STATEFUL = (_Array, _DType, _History)


class _Allowed(dict[str, Any]):
    """What torch allows: the items may be named, the values may be called."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__(names)
        self.update({
            'collections.OrderedDict': _spelled_out(OrderedDict),
            'collections.Counter': _spelled_out(Counter), 'torch.Size': _spelled_out(torch.Size),
            'builtins.set': _spelled_out(set), 'builtins.bytearray': _bytes,
            '_codecs.encode': _encode, 'torch._tensor._rebuild_from_type_v2': _from_type})
        kept = {f'torch._utils.{build.__name__}' for build in _REBUILD}
        for name in [name for name in self
                     if name.startswith('torch._utils.') and name not in kept]:
            del self[name]
        self._callable = [value for value in super().values() if not isinstance(value, type)
                          or value in (complex, torch.device)]

    def values(self) -> list[Any]:  # type: ignore[override]
        """Everything but the classes of tensors and storages."""
        return self._callable


@contextmanager
def _allowed_only() -> Iterator[None]:
    """Admit the list above and torch's own, not what other packages have added meanwhile."""
    others = torch.serialization.get_safe_globals()
    allowed = _Allowed(_weights_only_unpickler._get_allowed_globals())
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(_ALLOWED)
    _weights_only_unpickler._get_allowed_globals, torchs = (
        lambda: allowed), _weights_only_unpickler._get_allowed_globals
    try:
        yield
    finally:
        _weights_only_unpickler._get_allowed_globals = torchs
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def unpickle(file: str | Path | BinaryIO, map_location: Any = 'cpu') -> Any:
    """The object in a file of ``torch.save``, made of tensors and plain data only.

    Configs (yacs, mmcv, addict) come back as dictionaries, paths as text, ``argparse.Namespace``,
    numeric numpy arrays and log histories as themselves. Nothing the file names is called.

    Args:
        file: Path or open binary file; not a safetensors file.
        map_location: Device the tensors are put on.

    Raises:
        pickle.UnpicklingError: It holds something else, named ``GLOBAL module.name`` in the text.
        Exception: It is damaged; any kind, as torch and the stand-ins meet it.
    """
    with _allowed_only(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of damaged files torch also warns, before it fails
        return settle(torch.load(file, map_location=map_location, weights_only=True))


def settle(value: Any, done: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """The same data with stand-ins resolved; ``done`` holds (object, result) by identity."""
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, _History):
        return value.build()
    if isinstance(value, torch.Tensor):
        result = value.detach()  # without the attributes and hooks a file can give it
        done[id(value)] = value, result
        return result
    if type(value) is OrderedDict:  # a file can put attributes in the place of its methods
        versions = vars(value).get('_metadata')
        vars(value).clear()
        if isinstance(versions, dict):
            value._metadata = versions
    if isinstance(value, tuple) and type(value) is tuple:
        result = tuple(settle(item, done) for item in value)
        done[id(value)] = value, result
        return result
    if isinstance(value, dict | list | argparse.Namespace):
        done[id(value)] = value, value
        items = vars(value) if isinstance(value, argparse.Namespace) else value
        for key in list(items) if isinstance(items, dict) else range(len(items)):
            items[key] = settle(items[key], done)
    return value
