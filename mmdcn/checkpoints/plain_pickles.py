"""Reads files of ``pickle.dump`` that hold numbers, as the model zoo of detectron2 has them."""
from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

from mmdcn.checkpoints import unpickling

# The number with which files of ``torch.save`` that are no archives begin, as pickle writes it.
_LEGACY = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
_CLASSES = {name: build for build, name in unpickling.STAND_INS}


def is_plain_pickle(file: BinaryIO) -> bool:
    """Whether a file begins like a pickle, and not like what ``torch.save`` writes."""
    file.seek(0)
    head = file.read(32)
    file.seek(0)
    return head[:1] in (b'\x80', b'(', b'}', b'c') and _LEGACY not in head


def read_pickle(file: BinaryIO) -> Any:
    """The object in a pickle of any protocol, made of numpy arrays and plain data only.

    Text of Python 2 is taken as Latin-1, which keeps its bytes.

    Args:
        file: Open binary file at its beginning.

    Raises:
        pickle.UnpicklingError: It holds something else, named ``GLOBAL module.name`` in the text.
        Exception: It is damaged; any kind.
    """
    return unpickling.settle(_Unpickler(file, encoding='latin1').load())


def _refuse_opcode(*_: Any) -> None:
    raise unpickling.refuse('an object by an opcode for classes')


def _build(unpickler: _Unpickler) -> None:
    """Give what stands in for an object its state; nothing else takes one."""
    state = unpickler.stack.pop()
    made = unpickler.stack[-1]
    if isinstance(made, unpickling.STATEFUL):
        made.__setstate__(state)
    elif type(made) is not OrderedDict:  # its attributes are of no use here
        raise unpickling.refuse(f'state of a {type(made).__name__}')


def _reduce(unpickler: _Unpickler) -> None:
    """Call a stand-in, with arguments from the file."""
    arguments = unpickler.stack.pop()
    function = unpickler.stack[-1]
    if not any(function is build for build in _CLASSES.values()):
        raise unpickling.refuse(f'call of a {type(function).__name__}')
    unpickler.stack[-1] = function(*arguments)


class _Unpickler(pickle._Unpickler):
    """Python's own, in Python: the one in C lets a pickle change what it calls."""

    dispatch: dict[int, Callable[..., None]] = {  # noqa: RUF012
        **pickle._Unpickler.dispatch, pickle.BUILD[0]: _build, pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        **{code[0]: _refuse_opcode for code in (
            pickle.NEWOBJ_EX, pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4,
            pickle.PERSID, pickle.BINPERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)}}

    def find_class(self, module: str, name: str) -> Any:
        """What stands in for a class or function; that of Python 2 under its new name."""
        module = {'__builtin__': 'builtins'}.get(module, module)
        if f'{module}.{name}' not in _CLASSES:
            raise unpickling.refuse(f'{module}.{name}')
        return _CLASSES[f'{module}.{name}']
