"""Loads the compiled libraries of the operators, once, and says what is in them."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any, NoReturn

import torch

from ops_dcn.operators import OPERATORS, raw_operators

_CPU_LIBRARY = Path(__file__).with_name('_cpu.so')
_CUDA_LIBRARY = Path(__file__).with_name('_cuda.so')
_REMEDY = 'build it with `make env` or `pip install --no-build-isolation .`'
_kept: list[torch.library.Library] = []  # registrations end with their objects


@functools.cache
def load() -> None:
    """Register the compiled operators as ``torch.ops.ops_dcn.*``; later calls do nothing.

    The CUDA kernels are registered where they can be (:func:`cuda_problem`); where not, a call
    with CUDA tensors raises ``ImportError`` with the reason.

    Raises:
        ImportError: The CPU library, which holds the schemas, is missing, does not fit the
            installed torch or holds other operators than :data:`ops_dcn.OPERATORS`; the message
            names the file and the command that builds it.
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
            f'cannot load ({_reason(error)}), expected one built for torch >= 2.10; {_REMEDY}'
        ) from error
    got, expected = raw_operators(), {name for op in OPERATORS.values() for name in op.raw}
    if got != expected:
        raise ImportError(
            f'compiled library is not valid: got {_CPU_LIBRARY} without the operators '
            f'{sorted(expected - got)} and with {sorted(got - expected)}, which '
            f'ops_dcn.OPERATORS does not name, expected the same in both; {_REMEDY}'
        )
    if problem := cuda_problem():
        _refuse_cuda(problem)


@functools.cache
def cuda_problem() -> str:
    """Register the CUDA kernels; why they cannot be used here, or an empty string."""
    if torch.version.cuda is None:
        return f'torch {torch.__version__} is built without CUDA; install a CUDA build of torch'
    if not _CUDA_LIBRARY.is_file():
        return (
            f'the CUDA kernels of ops_dcn are not built: got no file {_CUDA_LIBRARY}; run '
            '`pip install nvidia-cuda-nvrtc-cu12` (their compiler; no toolkit is needed), then '
            f'{_REMEDY}'
        )
    try:
        torch.ops.load_library(str(_CUDA_LIBRARY))
    except OSError as error:
        if 'libcuda.so.1' in _reason(error):
            return (
                'NVIDIA\'s driver is not installed: got no libcuda.so.1, expected driver 525 or '
                'newer; install it (in a container, start it with GPU access)'
            )
        return (
            f'torch {torch.__version__} cannot load {_CUDA_LIBRARY} ({_reason(error)}), expected '
            f'one built for torch >= 2.10; {_REMEDY}'
        )
    return ''


def _reason(error: OSError) -> str:
    """What the dynamic loader said; torch wraps it."""
    return str(error.__cause__ or error)


def _refuse_cuda(problem: str) -> None:
    """Let calls with CUDA tensors say what is wrong, not merely that there is no kernel."""

    def refuse(*arguments: Any) -> NoReturn:
        raise ImportError(f'ops_dcn cannot run on CUDA: {problem}')

    library = torch.library.Library('ops_dcn', 'IMPL')
    for operator in OPERATORS.values():
        for name in operator.raw:
            library.impl(name, refuse, 'CUDA')
    _kept.append(library)


def backends() -> dict[str, str | None]:
    """Describe the compiled backends.

    Returns:
        ``cpu``: The instruction set in use (``'baseline'``, ``'avx2'`` or ``'avx512'``; the best
        this CPU has, or the one named by the environment variable ``OPS_DCN_CPU_ISA``);
        ``cuda``: The architectures of the kernels and what compiled them
        (``'sm_75 sm_80 ..., NVRTC 12.8'``), or None where they cannot be used
        (:func:`cuda_problem` says why).

    Raises:
        ImportError: As :func:`load`.
        ValueError: ``OPS_DCN_CPU_ISA`` names an instruction set that this CPU or build lacks.
    """
    load()
    name = _read(_CPU_LIBRARY, 'ops_dcn_cpu_isa')
    if name is None:
        raise ValueError(
            f'OPS_DCN_CPU_ISA is not valid: got {os.environ.get("OPS_DCN_CPU_ISA")!r}, expected '
            'baseline, avx2 or avx512, as far as this CPU and build offer it; unset it to use '
            'the best'
        )
    cuda = None if cuda_problem() else _read(_CUDA_LIBRARY, 'ops_dcn_cuda_build')
    return {'cpu': name, 'cuda': cuda}


def _read(path: Path, function: str) -> str | None:
    """The text that a function of a loaded library returns."""
    call = getattr(ctypes.CDLL(str(path)), function)
    call.restype = ctypes.c_char_p
    text = call()
    return None if text is None else text.decode()
