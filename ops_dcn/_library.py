"""Loads the compiled library of the operators, once, and says what is in it."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

import torch

_CPU_LIBRARY = Path(__file__).with_name('_cpu.so')
_REMEDY = 'build it with `make env` or `pip install --no-build-isolation .`'


@functools.cache
def load() -> None:
    """Register the compiled operators as ``torch.ops.ops_dcn.*``; later calls do nothing.

    Raises:
        ImportError: the library is missing or does not fit the installed torch; the message names
            the file and the command that builds it.
    """
    if not _CPU_LIBRARY.is_file():
        raise ImportError(
            f'compiled library is not valid: got no file {_CPU_LIBRARY}, expected the operators '
            f'of ops_dcn; {_REMEDY}'
        )
    try:
        torch.ops.load_library(str(_CPU_LIBRARY))
    except OSError as error:
        raise ImportError(
            f'compiled library is not valid: got {_CPU_LIBRARY}, which torch {torch.__version__} '
            f'cannot load ({error}), expected one built for torch >= 2.10; {_REMEDY}'
        ) from error


def backends() -> dict[str, str | None]:
    """Describe the compiled backends.

    Returns:
        ``cpu``: the instruction set in use (``'baseline'``, ``'avx2'`` or ``'avx512'``; the best
        this CPU has, or the one named by the environment variable ``OPS_DCN_CPU_ISA``);
        ``cuda``: None, since no CUDA library is compiled.

    Raises:
        ImportError: as :func:`load`.
        ValueError: ``OPS_DCN_CPU_ISA`` names an instruction set that this CPU or build lacks.
    """
    load()
    isa = ctypes.CDLL(str(_CPU_LIBRARY)).ops_dcn_cpu_isa
    isa.restype = ctypes.c_char_p
    name = isa()
    if name is None:
        raise ValueError(
            f'OPS_DCN_CPU_ISA is not valid: got {os.environ.get("OPS_DCN_CPU_ISA")!r}, expected '
            'baseline, avx2 or avx512, as far as this CPU and build offer it; unset it to use '
            'the best'
        )
    return {'cpu': name.decode(), 'cuda': None}
