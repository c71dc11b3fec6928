"""Builds the compiled libraries of ops_dcn and names the packages; metadata is in pyproject.toml.

The libraries are plain shared objects (`torch.ops.load_library`), written against PyTorch's stable
ABI: one build serves every Python and every torch from 2.10 on, hence the tag py3-none-PLATFORM.
`_cpu.so` needs a C++ compiler, `_cuda.so` NVRTC besides (every CUDA build of torch brings it): it
is skipped where there is none. OPS_DCN_CUDA=0 skips it anyway, OPS_DCN_CUDA=1 insists on it.
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
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    sys.exit('error: setuptools is too old: run pip install "setuptools>=70.1", then build again.')

ROOT = Path(__file__).resolve().parent
CSRC = Path('ops_dcn', 'csrc')
# For `make fuzz-sanitize`: what is built so runs only where the sanitizers are loaded before.
SANITIZE = os.environ.get('OPS_DCN_SANITIZE') == '1'
SANITIZERS = ['-fsanitize=address,undefined', '-fno-omit-frame-pointer', '-g'] if SANITIZE else []
OBJECTS = Path('build', 'sanitize' if SANITIZE else '', 'native')
EXPORTS = CSRC / 'exports.map'

# Stable ABI of torch 2.10: major, minor and patch are one byte each, so 10 is written 0x0A.
TARGET_VERSION = '0x020A000000000000'
CUDA = CSRC / 'cuda'
CUBINS = CUDA / 'cubins.py'
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
    *SANITIZERS,
]


# Source, extra flags, suffix of the object's name.
Unit = tuple[Path, list[str], str]


@dataclass
class Job:
    """One compiler call."""

    command: list[str]
    target: Path
    dependencies: list[Path]


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


def run_all(jobs: list[Job]) -> None:
    """Run the jobs that are not up to date, side by side."""
    stale = [job for job in jobs if not is_current(job.target, job.command, job.dependencies)]
    for job in stale:
        report(f'compiling {job.target}')
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        list(pool.map(lambda job: run(job.command, job.target), stale))


def write_if_changed(path: Path, text: str) -> Path:
    """Write a generated source, keeping its time stamp where nothing changed."""
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)
    return path


def load_cubins() -> ModuleType:
    """The module cubins.py, which lies beside the kernels."""
    spec = importlib.util.spec_from_file_location('ops_dcn_cubins', ROOT / CUBINS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_nvrtc() -> Path | None:
    """NVRTC for the CUDA library; None, with the reason reported, where it is skipped."""
    wish = os.environ.get('OPS_DCN_CUDA', '')
    if wish not in ('', '0', '1'):
        fail(f'OPS_DCN_CUDA is not valid: got {wish!r}, expected 0 (no CUDA library) or 1')
    if wish == '0':
        return None
    cubins = load_cubins()
    try:
        cubins.architectures(portable=True)
        nvrtc = cubins.find_nvrtc()
    except cubins.CubinError as error:
        fail(str(error))
    remedy = ('install NVRTC (pip install nvidia-cuda-nvrtc-cu12, or a CUDA build of torch) or '
              'name its folder in OPS_DCN_NVRTC')
    if nvrtc is None and wish == '1':
        fail(f'OPS_DCN_CUDA=1 is not valid here: no NVRTC found; {remedy}.')
    if nvrtc is None:
        report(f'ops_dcn: no NVRTC found, so the CUDA library is skipped. To build it, {remedy}.')
    return nvrtc


class BuildNative(build_ext):
    """Compiles csrc/ with the compiler alone; only what changed, on all cores."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name the file without Python's ABI suffix: it is no Python module."""
        return str(Path(*fullname.split('.'))) + '.so'

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Export no PyInit_ function."""
        return []

    def run(self) -> None:
        """Build; remember whether the result leaves this machine, before setuptools forgets it."""
        self.portable = not (self.inplace or self.editable_mode)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Compile and link the library of one backend."""
        os.chdir(ROOT)
        OBJECTS.mkdir(parents=True, exist_ok=True)
        self.includes, self.libraries = find_torch()
        self.compiler = find_compiler()
        backend = ext.name.rpartition('._')[2]
        if backend == 'cpu':
            units, flags = self.cpu_units(), []
        else:
            units, flags = self.cuda_units()
        jobs = [self.job(backend, unit) for unit in units]
        run_all(jobs)
        self.link([job.target for job in jobs], flags, ext)

    def job(self, backend: str, unit: Unit) -> Job:
        """The compiler call of one translation unit."""
        source, flags, suffix = unit
        target = OBJECTS / f'{backend}_{source.stem}{suffix}.o'
        command = [*self.compiler, *COMPILE_FLAGS, f'-DOPS_DCN_BACKEND={backend.upper()}', *flags]
        command += [f'-isystem{path}' for path in self.includes]
        # Messages of torch's headers name their file: it shall not say where torch lies here.
        command += [f'-ffile-prefix-map={path}=torch' for path in self.includes]
        command += [f'-I{CSRC}', '-MD', '-c', str(source), '-o', str(target)]
        return Job(command, target, read_depfile(target.with_suffix('.d')))

    def common_units(self) -> list[Unit]:
        """What each library has its own copy of. The schemas are in one of them only."""
        sources = [*CSRC.glob('*.cpp'), *CSRC.glob('operators/*.cpp')]
        return [(source, [], '') for source in sorted(sources) if source.stem != 'schemas']

    def cpu_units(self) -> list[Unit]:
        """Translation units of the CPU library."""
        x86 = platform.machine() in ('x86_64', 'AMD64')
        units = [*self.common_units(), (CSRC / 'schemas.cpp', [], '')]
        for source in sorted(CSRC.glob('cpu/*.cpp')):
            if source != KERNEL_SOURCE:
                units.append((source, [], ''))
                continue
            for name, flags in KERNEL_SETS.items():
                if x86 or name == 'baseline':
                    define = f'-DOPS_DCN_KERNELS={name}'
                    units.append((source, [*flags, define], f'_{name}'))
        return units

    def cuda_units(self) -> tuple[list[Unit], list[str]]:
        """Translation units of the CUDA library, cubins included, and flags to link it."""
        cubins = load_cubins()
        nvrtc = find_nvrtc()
        headers = [*CSRC.glob('*.h'), *CUDA.glob('*.h'), *CUDA.glob('*.cuh')]
        jobs, table = [], []
        for arch in cubins.architectures(self.portable):
            for source in sorted(CUDA.glob('*.cu')):
                target = OBJECTS / f'{source.stem}_sm_{arch}.cubin'
                command = [sys.executable, str(CUBINS), str(source), '--nvrtc', str(nvrtc)]
                command += ['--arch', str(arch), '-o', str(target)]
                jobs.append(Job(command, target, [source, CUBINS, nvrtc, *headers]))
                table.append((arch, target))
        run_all(jobs)
        embedding = write_if_changed(
            OBJECTS / 'embedded_cubins.cpp', cubins.embedding(table, cubins.Nvrtc(nvrtc).version))
        # Assembler includes are not in the compiler's list of dependencies.
        made = max(path.stat().st_mtime for _, path in table)
        if made > embedding.stat().st_mtime:
            os.utime(embedding)
        units = [(source, ['-DUSE_CUDA'], '') for source in sorted(CUDA.glob('*.cpp'))]
        units += [(embedding, [f'-I{CUDA}', '-DUSE_CUDA'], '')]
        return [*self.common_units(), *units], [str(path) for path in self.stand_ins(cubins)]

    def stand_ins(self, cubins: ModuleType) -> list[Path]:
        """Libraries to link against that need not be there when building.

        NVIDIA's libcuda.so.1 comes with its driver; the torch at hand may be a CPU build, without
        libtorch_cuda.so, of which one function is used.
        """
        names = {'libcuda.so.1': cubins.driver_functions(CUDA / 'driver.h'),
                 'libtorch_cuda.so': ['aoti_torch_get_current_cuda_stream']}
        jobs = []
        for library, functions in names.items():
            text = ''.join(f'extern "C" int {name}() {{ return 1; }}\n' for name in functions)
            source = write_if_changed(OBJECTS / f'{library.partition(".")[0]}.cpp', text)
            target = OBJECTS / library
            command = [*self.compiler, '-shared', '-fPIC', '-nostdlib', f'-Wl,-soname,{library}']
            jobs.append(Job([*command, str(source), '-o', str(target)], target, [source]))
        run_all(jobs)
        return [job.target for job in jobs]

    def link(self, objects: list[Path], flags: list[str], ext: Extension) -> None:
        """Link the objects and put the library where setuptools wants it."""
        linked = OBJECTS / f'{ext.name.rpartition(".")[2]}.so'
        command = [*self.compiler, '-shared', *map(str, objects), '-o', str(linked)]
        # The sanitizers come with the process, which loads them first.
        command += SANITIZERS or ['-s', '-Wl,--no-undefined']
        command += [f'-L{path}' for path in self.libraries]
        # libtorch_cpu alone: c10 would lend its copies of C++ library functions.
        command += ['-Wl,--as-needed', '-ltorch_cpu', *flags]
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


def backends() -> list[str]:
    """The libraries to build."""
    building = not {'clean', 'egg_info', 'dist_info', 'sdist'} & set(sys.argv[1:])
    return ['cpu', 'cuda'] if building and find_nvrtc() else ['cpu']


setup(
    packages=find_packages(include=['ops_dcn*', 'mmdcn*', 'mm*_custom*']),
    package_data={'ops_dcn': ['csrc/*.*', 'csrc/*/*.*']},
    ext_modules=[Extension(f'ops_dcn._{name}', sources=[]) for name in backends()],
    cmdclass={'build_ext': BuildNative, 'bdist_wheel': PlatformWheel},
    zip_safe=False,
)
