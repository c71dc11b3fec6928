"""Compiles the CUDA kernels with NVRTC, CUDA's compiler as a library: no nvcc, no GPU needed.

Part of the build (setup.py loads it by path), standard library only. As a program it compiles one
source for one architecture; setup.py runs one process per pair, so that they run side by side and
only what changed is compiled again.
"""
from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

# One cubin runs on every device of its major version from its minor version on.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
OPTIONS = ('--std=c++17', '--fmad=true', '-DNDEBUG')
# NVRTC has no standard headers; this is all the kernels use of them.
STDINT = b"""#pragma once
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
"""


class CubinError(Exception):
    """The kernels cannot be compiled; the text says why and what to do."""


def architectures(portable: bool) -> tuple[int, ...]:
    """The architectures to build for: ``OPS_DCN_CUDA_ARCHS`` (such as ``80,90``) if it is set.

    Otherwise all of them for a ``portable`` build, and for one that stays here those of the GPUs of
    this machine (without one, two that differ, so that the kernels are compiled at all).
    """
    wish = os.environ.get('OPS_DCN_CUDA_ARCHS', '').replace(',', ' ').split()
    if not all(re.fullmatch(r'\d{2,3}', word) for word in wish):
        raise CubinError(f'OPS_DCN_CUDA_ARCHS is not valid: got '
                         f'{os.environ["OPS_DCN_CUDA_ARCHS"]!r}, expected numbers such as 80,90')
    if wish:
        return tuple(sorted({int(word) for word in wish}))
    return ARCHITECTURES if portable else _local_architectures() or (80, 90)


def _local_architectures() -> tuple[int, ...]:
    """The architectures that the GPUs of this machine need; none where there are no GPUs."""
    query = ['nvidia-smi', '--query-gpu=compute_cap', '--format=csv,noheader']
    try:
        got = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    devices = {int(major) * 10 + int(minor)
               for major, minor in re.findall(r'^(\d+)\.(\d+)$', got.stdout, re.MULTILINE)}
    needed = {max((sm for sm in ARCHITECTURES if sm // 10 == device // 10 and sm <= device),
                  default=device) for device in devices}
    return tuple(sorted(needed))


def find_nvrtc() -> Path | None:
    """The NVRTC library to use, or None.

    ``OPS_DCN_NVRTC`` (the library or its folder) decides alone where it is set. Otherwise CUDA 12
    before 13, since its cubins run with older drivers: the packages nvidia-cuda-nvrtc-cu12 and
    nvidia-cuda-nvrtc (every CUDA build of torch brings one of them), then a CUDA toolkit.
    """
    if wish := os.environ.get('OPS_DCN_NVRTC'):
        path = Path(wish)
        found = path if path.is_file() else next(_libraries(path), None)
        if found is None:
            raise CubinError(f'OPS_DCN_NVRTC is not valid: got {wish}, expected libnvrtc.so.12 '
                             '(or .13), or a folder that holds it; unset it to search')
        return found.resolve()
    return next((path.resolve() for folder in _folders() for path in _libraries(folder)), None)


def _folders() -> Iterator[Path]:
    """Where NVRTC may lie, best first."""
    sites = list(dict.fromkeys([*sys.path, sysconfig.get_path('platlib')]))
    for package in ('cuda_nvrtc', 'cu13'):
        for site in sites:
            yield Path(site or '.', 'nvidia', package, 'lib')
    for name in ('CUDA_HOME', 'CUDA_PATH'):
        if root := os.environ.get(name):
            yield Path(root, 'lib64')
    yield Path('/usr/local/cuda/lib64')
    yield Path('/usr/lib/x86_64-linux-gnu')


def _libraries(folder: Path) -> Iterator[Path]:
    """libnvrtc.so.N in a folder; not the builtins, nor the alternative build beside it."""
    for path in sorted(folder.glob('libnvrtc.so.*')):
        if re.fullmatch(r'libnvrtc\.so\.(1[2-9]|[2-9]\d)(\.\d+)*', path.name):
            yield path


class Nvrtc:
    """The few functions of NVRTC that are needed, with errors as exceptions."""

    def __init__(self, path: Path) -> None:
        try:
            # NVRTC asks for this one by its bare name, which only some builds find by themselves.
            for builtins in path.parent.glob('libnvrtc-builtins.so.*'):
                ctypes.CDLL(str(builtins))
            self.library = ctypes.CDLL(str(path))
        except OSError as error:
            raise CubinError(f'NVRTC cannot be loaded: {error}; name another one in '
                             'OPS_DCN_NVRTC') from error
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def check(self, status: int) -> None:
        """Raise unless ``status`` is success."""
        if status:
            text = self.library.nvrtcGetErrorString(status).decode()
            raise CubinError(f'NVRTC failed: {text}')

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version of CUDA."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.check(self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        return major.value, minor.value

    def compile(self, source: Path, architecture: int) -> bytes:
        """The cubin of one source file, whose headers lie beside it or are included from there."""
        program = ctypes.c_void_p()
        options = [f'--gpu-architecture=sm_{architecture}', f'--include-path={source.parent}',
                   *OPTIONS]
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        headers, names = (ctypes.c_char_p * 1)(STDINT), (ctypes.c_char_p * 1)(b'stdint.h')
        self.check(self.library.nvrtcCreateProgram(
            ctypes.byref(program), source.read_bytes(), source.name.encode(), 1, headers, names))
        status = self.library.nvrtcCompileProgram(program, len(options), array)
        if log := self._text(program, 'ProgramLog').rstrip(b'\0\n').decode():
            sys.stderr.write(f'{source.name}, sm_{architecture}:\n{log}\n')
        if status:
            raise CubinError(f'NVRTC cannot compile {source} for sm_{architecture}')
        return self._text(program, 'CUBIN')

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self.check(getattr(self.library, f'nvrtcGet{what}Size')(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self.check(getattr(self.library, f'nvrtcGet{what}')(program, buffer))
        return buffer.raw


def embedding(cubins: Iterable[tuple[int, Path]], version: tuple[int, int]) -> str:
    """C++ source with the cubins in it; ``launcher.cpp`` reads the table."""
    data, rows = [], []
    for number, (architecture, path) in enumerate(cubins):
        name = f'ops_dcn_cubin_{number}'
        data.append(f'asm(".section .rodata\\n.balign 64\\n.hidden {name}\\n.globl {name}\\n'
                    f'{name}:\\n.incbin \\"{path.as_posix()}\\"\\n.balign 64\\n.previous");\n'
                    f'extern "C" __attribute__((visibility("hidden"))) '
                    f'const unsigned char {name}[];')
        rows.append(f'    {{{architecture}, {name}}},')
    return '\n'.join([
        '// Written by cubins.py.', '#include "launcher.h"', '', *data, '',
        'namespace ops_dcn {', 'namespace cuda {', '',
        'const Cubin kCubins[] = {', *rows, '    {0, nullptr},', '};',
        f'const char kCompiler[] = "NVRTC {version[0]}.{version[1]}";', '',
        '}  // namespace cuda', '}  // namespace ops_dcn', ''])


def driver_functions(header: Path) -> list[str]:
    """Names of the driver's functions that a header declares."""
    return sorted(set(re.findall(r'\b(cu[A-Z]\w+)\(', header.read_text())))


def main(argv: list[str] | None = None) -> int:
    """Compile one source for one architecture."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('source', type=Path)
    parser.add_argument('--nvrtc', type=Path, required=True, help='the library')
    parser.add_argument('--arch', type=int, required=True, help='such as 90')
    parser.add_argument('-o', '--output', type=Path, required=True)
    arguments = parser.parse_args(argv)
    try:
        cubin = Nvrtc(arguments.nvrtc).compile(arguments.source, arguments.arch)
    except CubinError as error:
        sys.stderr.write(f'error: {error}\n')
        return 1
    arguments.output.write_bytes(cubin)
    return 0


if __name__ == '__main__':
    sys.exit(main())
