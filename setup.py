"""Builds the compiled library of ops_dcn and names the packages; metadata is in pyproject.toml.

The library is a plain shared object (`torch.ops.load_library`), written against PyTorch's stable
ABI: one build serves every Python and every torch from 2.10 on, hence the tag py3-none-PLATFORM.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    sys.exit('error: setuptools is too old: run pip install "setuptools>=70.1", then build again.')

ROOT = Path(__file__).resolve().parent
CSRC = Path('ops_dcn', 'csrc')
OBJECTS = Path('build', 'native')
EXPORTS = CSRC / 'exports.map'

# Stable ABI of torch 2.10: major, minor and patch are one byte each, so 10 is written 0x0A.
TARGET_VERSION = '0x020A000000000000'
KERNEL_SOURCE = CSRC / 'cpu' / 'sample_kernel.cpp'
KERNEL_SETS = {
    'baseline': [],
    'avx2': ['-mavx2', '-mfma'],
    'avx512': ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mfma'],
}
COMPILE_FLAGS = [
    '-std=gnu++17',
    '-O3',
    '-fPIC',
    '-fvisibility=hidden',
    '-fvisibility-inlines-hidden',
    '-Wall',
    '-Wextra',
    '-Wno-psabi',
    '-DNDEBUG',
    f'-DTORCH_TARGET_VERSION={TARGET_VERSION}',
    f'-ffile-prefix-map={ROOT}=.',
]


def fail(message: str) -> NoReturn:
    """End the build with one clear message."""
    sys.exit(f'error: {message}')


def report(message: str) -> None:
    """Write one line of progress."""
    sys.stderr.write(f'{message}\n')
    sys.stderr.flush()


def find_compiler() -> list[str]:
    """Return the C++ compiler's command line: $CXX, else the first usual name on PATH."""
    if os.environ.get('CXX'):
        return shlex.split(os.environ['CXX'])
    for name in ('g++', 'c++', 'clang++'):
        if shutil.which(name):
            return [name]
    fail(
        'no C++ compiler found: ops_dcn needs g++ >= 9 or clang++ >= 10. Install one '
        '(Debian, Ubuntu: apt-get install g++; conda: conda install gxx) or name it in CXX.'
    )


def find_torch() -> tuple[list[Path], list[Path]]:
    """Return the include and library folders of the installed torch, without importing it."""
    spec = importlib.util.find_spec('torch')
    if spec is None or spec.origin is None:
        fail(
            'torch is not installed for this Python: install torch >= 2.10, then run pip with '
            '--no-build-isolation, so that the build sees it.'
        )
    version = importlib.metadata.version('torch')
    if tuple(int(part) for part in version.split('.')[:2]) < (2, 10):
        fail(f'torch is too old: got {version}, expected >= 2.10; run pip install "torch>=2.10".')
    package = Path(spec.origin).parent
    include, library = package / 'include', package / 'lib'
    if not (include / 'torch' / 'csrc' / 'stable' / 'library.h').is_file():
        # A torch whose headers lie outside the package (some distributions) knows where.
        from torch.utils.cpp_extension import include_paths, library_paths

        return [Path(p) for p in include_paths()], [Path(p) for p in library_paths()]
    return [include], [library]


def is_current(target: Path, command: list[str], dependencies: list[Path]) -> bool:
    """Tell whether `target` was made by `command` and is newer than all it depends on."""
    record = target.with_suffix(target.suffix + '.cmd')
    if not (target.is_file() and record.is_file()) or record.read_text() != shlex.join(command):
        return False
    made = target.stat().st_mtime
    return all(path.is_file() and path.stat().st_mtime <= made for path in dependencies)


def read_depfile(path: Path) -> list[Path]:
    """Return the files that a make rule written by the compiler (-MD) depends on."""
    if not path.is_file():
        return [path]
    _, _, names = path.read_text().replace('\\\n', ' ').partition(':')
    return [Path(name) for name in shlex.split(names)]


def run(command: list[str], target: Path) -> None:
    """Run one compiler call and record it beside its target."""
    target.unlink(missing_ok=True)
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        fail(f'{command[0]} cannot be run: {error}. Set CXX to a C++ compiler.')
    if result.stderr.strip():
        report(result.stderr)
    if result.returncode != 0:
        fail(f'the compiler failed on {target.name}: {shlex.join(command)}')
    target.with_suffix(target.suffix + '.cmd').write_text(shlex.join(command))


class BuildNative(build_ext):
    """Compiles csrc/ with the compiler alone; only what changed, on all cores."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name the file without Python's ABI suffix: it is no Python module."""
        return str(Path(*fullname.split('.'))) + '.so'

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Export no PyInit_ function."""
        return []

    def build_extension(self, ext: Extension) -> None:
        """Compile and link the library of one backend."""
        os.chdir(ROOT)
        includes, libraries = find_torch()
        compiler = find_compiler()
        OBJECTS.mkdir(parents=True, exist_ok=True)
        jobs = []
        for source, flags, name in self.units():
            target = OBJECTS / f'{name}.o'
            command = [*compiler, *COMPILE_FLAGS, *flags]
            command += [f'-isystem{path}' for path in includes]
            command += ['-MD', '-c', str(source), '-o', str(target)]
            jobs.append((command, target))
        stale = [
            (command, target)
            for command, target in jobs
            if not is_current(target, command, read_depfile(target.with_suffix('.d')))
        ]
        for _, target in stale:
            report(f'compiling {target}')
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            list(pool.map(lambda job: run(*job), stale))
        self.link(compiler, [target for _, target in jobs], libraries, ext)

    def units(self) -> list[tuple[Path, list[str], str]]:
        """Return (source, extra flags, object name) of every translation unit."""
        x86 = platform.machine() in ('x86_64', 'AMD64')
        units = []
        for source in sorted([*CSRC.glob('*.cpp'), *CSRC.glob('cpu/*.cpp')]):
            if source != KERNEL_SOURCE:
                units.append((source, [], f'cpu_{source.stem}'))
                continue
            for name, flags in KERNEL_SETS.items():
                if x86 or name == 'baseline':
                    define = f'-DOPS_DCN_KERNELS={name}'
                    units.append((source, [*flags, define], f'cpu_{source.stem}_{name}'))
        return units

    def link(
        self, compiler: list[str], objects: list[Path], libraries: list[Path], ext: Extension
    ) -> None:
        """Link the objects and put the library where setuptools wants it."""
        linked = OBJECTS / f'{ext.name.rpartition(".")[2]}.so'
        command = [*compiler, '-shared', *map(str, objects), '-o', str(linked), '-s']
        command += [f'-L{path}' for path in libraries]
        # libtorch_cpu alone: c10 would lend its copies of C++ library functions.
        command += ['-Wl,--as-needed', '-ltorch_cpu', '-Wl,--no-undefined']
        command += [f'-Wl,--version-script={EXPORTS}']
        if not is_current(linked, command, [*objects, EXPORTS]):
            report(f'linking {linked}')
            run(command, linked)
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.stat().st_mtime < linked.stat().st_mtime:
            # A running process may have the old file mapped: replace it, never write into it.
            temporary = target.with_suffix('.tmp')
            shutil.copyfile(linked, temporary)
            os.replace(temporary, target)


class PlatformWheel(bdist_wheel):
    """Tags the wheel for every Python 3: the library uses no Python symbol."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return (python, abi, platform)."""
        return 'py3', 'none', super().get_tag()[2]


setup(
    packages=find_packages(include=['ops_dcn*', 'mm*_custom*']),
    package_data={'ops_dcn': ['csrc/*.*', 'csrc/*/*.*']},
    ext_modules=[Extension('ops_dcn._cpu', sources=[])],
    cmdclass={'build_ext': BuildNative, 'bdist_wheel': PlatformWheel},
    zip_safe=False,
)
