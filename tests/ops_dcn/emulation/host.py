"""Builds and loads the host code of the CUDA library on the emulation (host.cpp)."""
from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

import torch

from ops_dcn import _autograd
from ops_dcn.operators import OPERATORS
from tests.helpers import ROOT
from tests.ops_dcn import emulation

CSRC = ROOT / 'ops_dcn' / 'csrc'
FLAGS = ['-std=gnu++17', '-O1', '-fPIC', '-shared', '-fvisibility=hidden', '-Wall', '-Wextra',
         '-DUSE_CUDA', '-DTORCH_TARGET_VERSION=0x020A000000000000', '-Dops_dcn=ops_dcn_emulated',
         '-DOPS_DCN_BACKEND=CPU', '-Wl,-Bsymbolic', '-Wl,--as-needed']


class Driver(ctypes.Structure):
    """What the emulated driver counts, and what it is told to do; see host.cpp."""

    _fields_ = [('failing', ctypes.c_char * 64), ('error', ctypes.c_int)] + [
        (name, ctypes.c_int) for name in (
            'major', 'minor', 'modules', 'functions', 'launches', 'memsets', 'device',
            'guards', 'guard_index', 'relaxed', 'loads_not_relaxed')] + [
        ('stream', ctypes.c_void_p), ('launch_stream', ctypes.c_void_p), ('image', ctypes.c_char),
        ('context', ctypes.c_void_p)]


def build() -> Path:
    """Compile the host code, unless a build of the same sources is there."""
    package = Path(importlib.util.find_spec('torch').origin).parent
    sources = [Path(__file__).with_name('host.cpp'), *CSRC.glob('*.*'),
               *CSRC.glob('operators/*'), *CSRC.glob('cuda/*.h'), *CSRC.glob('cuda/*.cpp')]
    operators = [f'-include{path}' for path in sorted(CSRC.glob('operators/*.cpp'))]
    salt = f'{FLAGS} {torch.__version__}'
    return emulation.cached_build('emulated_host', sorted(sources), salt, [
        *FLAGS, f'-I{CSRC}', f'-isystem{package / "include"}', *operators, str(sources[0]),
        str(CSRC / 'cuda' / 'plan.cpp'), '-ldl', f'-L{package / "lib"}', '-ltorch_cpu'])


def load() -> tuple[Driver, dict[str, type[torch.autograd.Function]]]:
    """The driver, and the autograd functions that run on the emulation, by operator."""
    library, kernels = build(), emulation.build()
    torch.ops.load_library(str(library))
    access = ctypes.CDLL(str(library)).emulated_driver
    access.restype, access.argtypes = ctypes.POINTER(Driver), [ctypes.c_char_p]
    driver = access(str(kernels).encode())
    assert driver, 'the emulation does not load'
    functions = {}
    for name, operator in OPERATORS.items():
        raw = [getattr(torch.ops.ops_dcn_emulated, direction).default
               for direction in operator.raw]
        functions[name] = _autograd.make_function(*raw, operator.differentiable)
    return driver.contents, functions
