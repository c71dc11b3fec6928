"""Make ``.venv`` with everything the project needs; ``make env`` calls this.

Standard library only, as is ``mmdcn.writing``: it runs before anything is installed. Decisions:

* Steps run in order, each remembered by a digest of its inputs in ``.venv/mmdcn_env.json``: a
  second call does nothing, and a changed source file rebuilds only ``ops_dcn``.
* A working torch with torchvision in the calling interpreter's environment (CPU build, other CUDA,
  conda) is used through a ``.pth`` file, never replaced; one inside ``.venv`` stays, too.
* mmcv is compiled against torch: a wheel is taken from ``MMDCN_WHEELS``, ``wheels/`` or
  ``../shared/wheels`` where it fits, else built from source (about a quarter of an hour).
"""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mmdcn.writing import write_text  # noqa: E402

REQUIREMENTS = ROOT / 'requirements'
WHEEL_TORCH = '2.13.0'  # the prebuilt mmcv wheels are for this torch
MIN_TORCH = (2, 10)


class EnvError(Exception):
    """A step failed; the text names the remedy."""


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


def run_logged(command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
    """Run a command, its output in ``log``, with a sign of life every 15 seconds."""
    start, shown = time.time(), time.time()
    with log.open('a') as sink:
        sink.write(f'$ {" ".join(command)}\n')
        sink.flush()
        at = sink.tell()
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, cwd=ROOT,
                                   env={**os.environ, **(env or {})})
        while process.poll() is None:
            time.sleep(0.2)
            if time.time() - shown > 15:
                shown = time.time()
                say(f'      {shown - start:4.0f} s  {last_line(log, at)}')
    if process.returncode:
        tail = log.read_text(errors='replace').splitlines()[-15:]
        raise EnvError('\n'.join(['      ' + line for line in tail])
                       + f'\ncommand failed: {" ".join(command)}\nwhole log: {log}')


def last_line(log: Path, start: int) -> str:
    """Last non-empty line that the running command wrote."""
    with log.open('rb') as file:
        file.seek(start)
        lines = [line for line in file.read().decode(errors='replace').splitlines() if line.strip()]
    return lines[-1].strip()[:100] if lines else 'starting'


def digest(paths: Iterable[Path], *words: str) -> str:
    """Digest of file contents and further words."""
    sha = hashlib.sha256()
    for word in words:
        sha.update(word.encode() + b'\0')
    for path in sorted(paths):
        sha.update(str(path.relative_to(ROOT)).encode() + b'\0' + path.read_bytes())
    return sha.hexdigest()[:16]


def probe_torch(python: str) -> dict[str, str] | None:
    """Versions and site folder of a torch+torchvision that imports in ``python``, else None."""
    code = ('import json, os, torch, torchvision\n'
            'torch.zeros(2) + 1\n'
            'print(json.dumps(dict(torch=torch.__version__, torchvision=torchvision.__version__,'
            ' site=os.path.dirname(os.path.dirname(torch.__file__)))))')
    # -I: the current folder and PYTHONPATH must not decide which torch is found
    got = subprocess.run([python, '-I', '-c', code], capture_output=True, text=True, check=False)
    if got.returncode:
        return None
    found = json.loads(got.stdout.splitlines()[-1])
    version = tuple(int(part) for part in found['torch'].split('.')[:2])
    return found if version >= MIN_TORCH else None


def check_compiler() -> None:
    """Raise unless a C++17 compiler works."""
    compiler = os.environ.get('CXX') or next(
        (name for name in ('c++', 'g++', 'clang++') if shutil.which(name)), None)
    remedy = ('install one (Debian/Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; '
              'conda: conda install gxx) or point CXX at it, then call make env again')
    if compiler is None:
        raise EnvError('C++ compiler is missing: got none in PATH, expected one for C++17; '
                       + remedy)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'probe.cpp'
        source.write_text('#include <optional>\n'
                          'int main() { return std::optional<int>(0).value(); }\n')
        command = [*compiler.split(), '-std=c++17', str(source), '-o', f'{folder}/probe']
        got = subprocess.run(command, capture_output=True, text=True, check=False)
    if got.returncode:
        raise EnvError(f'C++ compiler {compiler!r} does not build C++17: '
                       f'{got.stderr.strip()[-300:]}; {remedy}')


class Environment:
    """The virtual environment and what is already done in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = str(folder / 'bin' / 'python')
        self.log = folder / 'make_env.log'
        self.state_file = folder / 'mmdcn_env.json'
        try:
            self.state: dict[str, str] = json.loads(self.state_file.read_text())
        except (OSError, ValueError):
            self.state = {}

    def pip(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        """``pip install`` under the constraints that fit the torch in use."""
        constraints = self.folder / 'constraints.txt'
        shutil.copyfile(REQUIREMENTS / 'constraints.txt', constraints)
        torch = probe_torch(self.python)
        if torch:
            with constraints.open('a') as file:
                file.write(f'torch==={torch["torch"]}\ntorchvision==={torch["torchvision"]}\n')
        run_logged([self.python, '-m', 'pip', 'install', '--disable-pip-version-check',
                    '--progress-bar', 'off', '-c', str(constraints), *arguments], self.log, env)

    def create(self) -> None:
        """Create the environment with the calling interpreter, linking its torch if it has one."""
        given = probe_torch(sys.executable)
        if not Path(self.python).exists():
            new = not self.folder.exists()
            try:
                subprocess.run([sys.executable, '-m', 'venv', str(self.folder)], check=True,
                               capture_output=True, text=True)
            except subprocess.CalledProcessError as error:
                if new:
                    shutil.rmtree(self.folder, ignore_errors=True)
                version = f'{sys.version_info.major}.{sys.version_info.minor}'
                raise EnvError(
                    f'{error.stdout or error.stderr}\nvenv cannot be made with {sys.executable}; '
                    'install its venv module (Debian/Ubuntu: apt-get install '
                    f'python{version}-venv) or call make env PYTHON=/path/to/python') from None
        if given and probe_torch(self.python) is None:
            version = f'python{sys.version_info.major}.{sys.version_info.minor}'
            link = self.folder / 'lib' / version / 'site-packages' / 'mmdcn_given_torch.pth'
            link.write_text(given['site'] + '\n')

    def install_torch(self) -> None:
        """Install torch unless a working one is there."""
        found = probe_torch(self.python)
        if found:
            say(f'      keeping torch {found["torch"]}, torchvision {found["torchvision"]}')
            return
        self.pip('-r', str(REQUIREMENTS / 'torch.txt'))

    def install_mmcv(self) -> None:
        """Install mmcv from a fitting wheel, else from source; check that its ops import."""
        requirement = ['--no-build-isolation', '-r', str(REQUIREMENTS / 'mmcv.txt')]
        torch = probe_torch(self.python)
        if torch and torch['torch'].split('+')[0] == WHEEL_TORCH:
            for folder in (os.environ.get('MMDCN_WHEELS'), ROOT / 'wheels',
                           ROOT.parent / 'shared' / 'wheels'):
                if folder and any(Path(folder).glob('onedl_mmcv-*.whl')):
                    requirement += ['--find-links', str(folder)]
        else:
            # pip's cache may hold a build against another torch
            requirement += ['--no-cache-dir']
        if '--find-links' not in requirement:
            say('      no prebuilt wheel: building from source, about 16 minutes on 2 cores')
        jobs = {'MMCV_WITH_OPS': '1', 'MAX_JOBS': str(os.cpu_count() or 2)}
        self.pip(*requirement, env=jobs)
        if subprocess.run([self.python, '-c', 'import mmcv.ops'], capture_output=True,
                          check=False).returncode:
            say('      that build does not fit this torch: building from source, 16 minutes')
            self.pip('--no-build-isolation', '--no-cache-dir', '--no-binary', 'onedl-mmcv',
                     '--force-reinstall', '--no-deps', '-r', str(REQUIREMENTS / 'mmcv.txt'),
                     env=jobs)

    def install_openmmlab(self) -> None:
        """Install the OpenMMLab packages; without a display library, OpenCV's headless build."""
        self.pip('-r', str(REQUIREMENTS / 'openmmlab.txt'))
        if subprocess.run([self.python, '-c', 'import cv2'], capture_output=True,
                          check=False).returncode:
            self.pip('--force-reinstall', '--no-deps', 'opencv-python-headless')

    def build_ops(self) -> None:
        """Build ops_dcn and make the project importable (editable install)."""
        self.pip('--no-build-isolation', '--no-deps', '-e', str(ROOT))

    def steps(self) -> list[tuple[str, str, Callable[[], None]]]:
        """Name, digest of the inputs and action of every step, in order."""
        req = REQUIREMENTS
        lock = req / 'constraints.txt'
        sources = [path for path in (ROOT / 'ops_dcn/csrc').rglob('*') if path.is_file()]
        return [
            ('build tools', digest([req / 'build.txt', lock]),
             lambda: self.pip('-r', str(req / 'build.txt'))),
            ('torch', digest([req / 'torch.txt']), self.install_torch),
            ('mmcv', digest([req / 'mmcv.txt']), self.install_mmcv),
            ('OpenMMLab', digest([req / 'openmmlab.txt', lock]), self.install_openmmlab),
            ('mmdet3d, nuscenes-devkit', digest([req / 'nodeps.txt']),
             lambda: self.pip('--no-deps', '-r', str(req / 'nodeps.txt'))),
            ('test tools', digest([req / 'dev.txt', lock]),
             lambda: self.pip('-r', str(req / 'dev.txt'))),
            ('ops_dcn', digest([ROOT / 'setup.py', ROOT / 'pyproject.toml', *sources]),
             self.build_ops),
        ]

    def done(self, name: str, key: str) -> bool:
        """Whether a step was finished with the same inputs (and left its library, for ops_dcn)."""
        built = name != 'ops_dcn' or any((ROOT / 'ops_dcn').glob('*.so'))
        return self.state.get(name) == key and built


def make_env(folder: Path) -> None:
    """Bring the environment in ``folder`` up to date."""
    start = time.time()
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        raise EnvError(f'Python is not valid: got {sys.version.split()[0]} ({sys.executable}), '
                       'expected 3.10 to 3.13; install one (Debian/Ubuntu: apt-get install '
                       'python3 python3-venv; with uv, without root: uv python install 3.11 && '
                       'make env PYTHON=$(uv python find 3.11)) or call make env '
                       'PYTHON=/path/to/python3.11')
    env = Environment(folder)
    if not Path(env.python).exists():
        env.state = {}
    steps = env.steps()
    todo = [step for step in steps if not env.done(step[0], step[1])]
    if not todo:
        say(f'environment {folder} is up to date')
        return
    check_compiler()
    env.create()
    for number, (name, key, action) in enumerate(steps, 1):
        if env.done(name, key):
            continue
        say(f'[{number}/{len(steps)}] {name}')
        action()
        env.state[name] = key
        write_text(env.state_file, json.dumps(env.state, indent=1))
    say(f'environment {folder} is ready after {time.time() - start:.0f} s; '
        f'check it any time: {folder}/bin/python tools/collect_env.py')


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(prog='make_env.py', description=__doc__.splitlines()[0])
    parser.add_argument('--venv', type=Path, default=ROOT / '.venv', help='folder (default: .venv)')
    return parser


def main(argv: list[str] | None = None) -> int:
    """Command line; exit code 2 with a message where something is missing."""
    arguments = build_parser().parse_args(argv)
    try:
        make_env(arguments.venv)
    except EnvError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
