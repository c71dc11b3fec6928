"""Audit the wheel of ops_dcn: does it run where its tag and its metadata say?

Reads the ELF files of the wheel itself: symbols that come from elsewhere, libraries asked for,
versions of glibc and libstdc++, paths of the machine that built it; then tag and contents. Ends in
``OK`` and the floors, or lists what is wrong (exit status 1).

    python tools/dev/check_wheel.py dist/*.whl
    python tools/dev/check_wheel.py dist/*.whl --install      # and selftest in a bare environment
    python tools/dev/check_wheel.py dist/*.whl --install --torch FOLDER   # with the torch in FOLDER
"""
from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdcn.apis import cli  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402
from tools.dev.wheel_check.elf import Elf, ElfError  # noqa: E402
from tools.dev.wheel_check.rules import LIBRARIES, Rules  # noqa: E402

TORCH_FLOOR = (2, 10)
# What a wheel must hold, and what may be in it.
REQUIRED = ('ops_dcn/__init__.py', 'ops_dcn/reference.py', 'ops_dcn/selftest.py', *LIBRARIES)
ALLOWED = re.compile(
    r'(ops_dcn/.*\.(py|so|cpp|h|cu|cuh|map)|(mmdcn|mm\w+_custom)/.*\.py|mmdcn-[^/]+\.dist-info/.*)$')
TAG = re.compile(r'py3-none-manylinux_(\d+)_(\d+)_x86_64$')
# The folders that builds and homes usually lie in, at the start of a path.
MACHINE_PATH = re.compile(
    rb'(?<![\w./-])/(?:home|root|work|tmp|opt|build|builds|mnt|Users|workspace)/[\w.+/-]{3,}')


class Audit:
    """What was found in one wheel."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.glibc = self.libstdcxx = (0, 0)
        self.facts: list[str] = []

    def run(self) -> None:
        """Look at everything."""
        with zipfile.ZipFile(self.path) as wheel:
            files = {name: wheel.read(name) for name in wheel.namelist() if name[-1] != '/'}
        self.check_contents(files)
        for name, rules in LIBRARIES.items():
            if name in files:
                self.check_library(name, files[name], rules)
        self.check_tag(files)
        self.check_metadata(files)
        for name, data in files.items():
            for found in sorted(set(MACHINE_PATH.findall(data)))[:3]:
                self.problems.append(f'{name} holds a path of a machine: {found.decode()}')

    def check_contents(self, files: dict[str, bytes]) -> None:
        """Nothing may be missing, nothing else may be there."""
        self.problems += [f'{name} is missing' for name in REQUIRED if name not in files]
        self.problems += [f'{name} does not belong there' for name in files
                          if not ALLOWED.match(name)
                          or name.endswith('.so') and name not in LIBRARIES]

    def check_library(self, name: str, data: bytes, rules: Rules) -> None:
        """Symbols, libraries and versions of one shared library."""
        try:
            elf = Elf(data)
        except ElfError as error:
            self.problems.append(f'{name} is not valid: {error}')
            return
        self.facts.append(f'{name}: {len(data) / 1e6:.1f} MB, needs {", ".join(elf.needed)}')
        self.problems += [f'{name} asks for the library {library}'
                          for library in elf.needed if library not in rules.needed]
        if elf.search_path:
            self.problems.append(f'{name} has a search path: {elf.search_path}')
        for symbol in elf.undefined:
            if reason := rules.refuses(symbol):
                self.problems.append(f'{name}: {symbol.name} {reason}')
            if match := re.fullmatch(r'GLIBC_(\d+)\.(\d+)(\.\d+)?', symbol.version):
                self.glibc = max(self.glibc, (int(match[1]), int(match[2])))
            if match := re.fullmatch(r'GLIBCXX_3\.4(?:\.(\d+))?', symbol.version):
                self.libstdcxx = max(self.libstdcxx, (3, int(match[1] or 0)))
        extra = [symbol for symbol in elf.exported if not symbol.startswith('ops_dcn_')]
        self.problems += [f'{name} exports {symbol}' for symbol in extra[:5]]

    def check_tag(self, files: dict[str, bytes]) -> None:
        """The tag must promise no older glibc than the libraries need."""
        tags = re.findall(r'^Tag: (.+)$', self.text(files, 'WHEEL'), re.MULTILINE)
        named = self.path.stem.split('-', 2)[2]
        for tag in {*tags, named}:
            match = TAG.fullmatch(tag)
            if not match:
                self.problems.append(
                    f'the tag is not valid: got {tag}, expected py3-none-manylinux_X_Y_x86_64')
            elif (int(match[1]), int(match[2])) < self.glibc:
                self.problems.append(f'the tag {tag} promises an older glibc than '
                                     f'GLIBC_{self.glibc[0]}.{self.glibc[1]}, which is needed')
        # libstdc++ of manylinux_2_28: GCC 8.
        if self.libstdcxx > (3, 25):
            self.problems.append(f'GLIBCXX_3.4.{self.libstdcxx[1]} is newer than the 3.4.25 of '
                                 'manylinux_2_28')

    def check_metadata(self, files: dict[str, bytes]) -> None:
        """The metadata must name torch's floor."""
        text = self.text(files, 'METADATA')
        floor = '.'.join(map(str, TORCH_FLOOR))
        if not re.search(rf'^Requires-Dist: torch>={re.escape(floor)}$', text, re.MULTILINE):
            self.problems.append(f'the metadata does not require torch>={floor}')

    @staticmethod
    def text(files: dict[str, bytes], name: str) -> str:
        """A file of the metadata folder, empty where there is none."""
        return next((data.decode() for path, data in files.items()
                     if path.endswith(f'.dist-info/{name}')), '')


def install(wheel: Path, torch_folder: Path | None) -> int:
    """Install the wheel beside nothing but torch and run its self test."""
    with tempfile.TemporaryDirectory(prefix='check-wheel-') as name:
        folder = Path(name)
        python = folder / 'bin' / 'python'
        subprocess.run([sys.executable, '-m', 'venv', name], check=True)
        pip = [str(python), '-m', 'pip', '--disable-pip-version-check', 'install', '-q']
        if torch_folder is None:
            subprocess.run([*pip, str(wheel)], check=True)
        else:
            site = next((folder / 'lib').glob('python*/site-packages'))
            (site / 'given_torch.pth').write_text(f'{torch_folder.resolve()}\n')
            subprocess.run([*pip, '--no-deps', str(wheel)], check=True)
        # -I, another folder: the checkout must not be what is imported.
        command = [str(python), '-I', '-m', 'ops_dcn.selftest']
        return subprocess.run(command, cwd=name, check=False).returncode


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(prog='check_wheel.py',
                                     description=__doc__.partition('\n')[0])
    parser.add_argument('wheel', type=Path)
    parser.add_argument('--install', action='store_true', help='install it and run its self test')
    parser.add_argument('--torch', type=Path, metavar='FOLDER',
                        help='with --install: the site folder of a torch, instead of a new one')
    return parser


def check_wheel(args: argparse.Namespace) -> int:
    """Audit one wheel; returns 1 where something is wrong with it."""
    if not args.wheel.is_file():
        raise UserError('wheel', f'got {args.wheel}', 'an existing file',
                        'build it with `make wheel`')
    audit = Audit(args.wheel)
    audit.run()
    for line in [args.wheel.name, *audit.facts]:
        print(line)
    for problem in audit.problems:
        print(f'FAILS: {problem}')
    if audit.problems:
        print(f'{len(audit.problems)} problems')
        return 1
    if args.install and install(args.wheel, args.torch):
        print('FAILS: the self test of the installed wheel')
        return 1
    print(f'OK: torch >= {".".join(map(str, TORCH_FLOOR))}, glibc >= '
          f'{audit.glibc[0]}.{audit.glibc[1]}, GLIBCXX >= 3.4.{audit.libstdcxx[1]}, Python >= 3.10')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, 1 where the wheel breaks a rule, or 2 where there is none."""
    return cli.run_tool(check_wheel, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
