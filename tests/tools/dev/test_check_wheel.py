"""The audit of the wheel."""
from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tools.dev import check_wheel
from tools.dev.wheel_check.elf import Elf, ElfError

NAME = 'mmdcn-0.1.0-py3-none-manylinux_2_28_x86_64.whl'
SOURCE = 'extern "C" int aoti_torch_get_dim(); extern "C" int ops_dcn_f() { return %s; }'


def compile_library(folder: Path, body: str = 'aoti_torch_get_dim()', extra: str = '',
                    *flags: str) -> bytes:
    source, target = folder / 'x.cpp', folder / 'x.so'
    source.write_text(extra + SOURCE % body)
    subprocess.run([shutil.which('g++') or shutil.which('c++'), '-shared', '-fPIC', '-nostdlib',
                    str(source), '-o', str(target), *flags], check=True)
    return target.read_bytes()


@pytest.fixture(scope='module')
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compile_library(tmp_path_factory.mktemp('library'))


def make_wheel(folder: Path, library: bytes, *, name: str = NAME, tag: str = '',
               floor: str = 'torch>=2.10', **files: bytes) -> Path:
    tag = tag or name.removesuffix('.whl').split('-', 2)[2]
    contents = {f'ops_dcn/{part}.py': b'' for part in ('__init__', 'reference', 'selftest')}
    contents |= {'ops_dcn/_cpu.so': library, 'ops_dcn/_cuda.so': library,
                 'mmdcn-0.1.0.dist-info/WHEEL': f'Tag: {tag}\n'.encode(),
                 'mmdcn-0.1.0.dist-info/METADATA': f'Requires-Dist: {floor}\n'.encode()}
    contents |= {path.replace('__', '/', 1).replace('_dot_', '.'): data
                 for path, data in files.items()}
    path = folder / name
    with zipfile.ZipFile(path, 'w') as wheel:
        for inside, data in contents.items():
            wheel.writestr(inside, data)
    return path


def test_clean_wheel_is_ok(tmp_path: Path, library: bytes,
                           capsys: pytest.CaptureFixture[str]) -> None:
    assert check_wheel.main([str(make_wheel(tmp_path, library))]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith('OK: torch >= 2.10, glibc >= ')


def problems(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert check_wheel.main([str(path)]) == 1
    out = capsys.readouterr().out
    assert 'OK' not in out
    return out


@pytest.mark.parametrize(('body', 'extra', 'flags', 'words'), [
    ('torch_stream_native_handle()', 'extern "C" int torch_stream_native_handle();', [],
     'torch_stream_native_handle is neither of the stable ABI of torch 2.10 nor of the driver'),
    ('f()', 'namespace c10 { int f(); } using c10::f;', [], '_ZN3c101fEv is neither'),
    ('1', '', ['-Wl,-rpath,/somewhere'], 'has a search path: /somewhere'),
    ('1', 'extern "C" int leaked() { return 1; }', [], 'exports leaked'),
    ('1', 'const char* path = "/home/someone/project/file.h";', [], 'holds a path of a machine')])
def test_library_that_breaks_a_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str,
                                    extra: str, flags: list[str], words: str) -> None:
    data = compile_library(tmp_path, body, extra, *flags)
    assert words in problems(make_wheel(tmp_path, data), capsys)


def test_library_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'y.cpp').write_text('extern "C" int aoti_torch_get_dim() { return 1; }')
    subprocess.run(['g++', '-shared', '-fPIC', '-nostdlib', str(tmp_path / 'y.cpp'), '-o',
                    str(tmp_path / 'libcudart.so.13'), '-Wl,-soname,libcudart.so.13'], check=True)
    data = compile_library(tmp_path, 'aoti_torch_get_dim()', '', str(tmp_path / 'libcudart.so.13'))
    assert 'asks for the library libcudart.so.13' in problems(make_wheel(tmp_path, data), capsys)


@pytest.mark.parametrize(('change', 'words'), [
    ({'name': 'mmdcn-0.1.0-cp311-cp311-linux_x86_64.whl'}, 'the tag is not valid: got cp311'),
    ({'floor': 'torch>=2.9'}, 'the metadata does not require torch>=2.10'),
    ({'ops_dcn__notes_dot_txt': b''}, 'ops_dcn/notes.txt does not belong there'),
    ({'ops_dcn__other_dot_so': b''}, 'ops_dcn/other.so does not belong there'),
    ({'ops_dcn__selftest_dot_py': b'x = "/home/someone/data"'}, 'holds a path of a machine')])
def test_wheel_that_breaks_a_rule(tmp_path: Path, library: bytes, change: dict, words: str,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    assert words in problems(make_wheel(tmp_path, library, **change), capsys)


def test_glibc_newer_than_the_tag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = compile_library(tmp_path, 'qsort_r(0, 0, 0, 0, 0), 1',
                           'extern "C" void qsort_r(void*, long, long, void*, void*);\n', '-lc')
    assert any(symbol.version == 'GLIBC_2.8' for symbol in Elf(data).undefined)
    name = 'mmdcn-0.1.0-py3-none-manylinux_2_5_x86_64.whl'
    assert 'promises an older glibc than GLIBC_2.8' in problems(
        make_wheel(tmp_path, data, name=name), capsys)


def test_missing_library(tmp_path: Path, library: bytes,
                         capsys: pytest.CaptureFixture[str]) -> None:
    path = make_wheel(tmp_path, library)
    stripped = tmp_path / 'other' / NAME
    stripped.parent.mkdir()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(stripped, 'w') as new:
        for name in old.namelist():
            if name != 'ops_dcn/_cuda.so':
                new.writestr(name, old.read(name))
    assert 'ops_dcn/_cuda.so is missing' in problems(stripped, capsys)


@pytest.mark.parametrize('data', [b'', b'text' * 50, b'\x7fELF\x02\x01' + bytes(100)])
def test_damaged_library(data: bytes) -> None:
    with pytest.raises(ElfError, match='got'):
        Elf(data)


def test_no_wheel_ends_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_wheel.main([str(tmp_path / 'none.whl')]) == 2
    assert 'build it with `make wheel`' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['_cpu', '_cuda'])
def test_what_is_built_here_keeps_the_rules(name: str) -> None:
    """The symbols of the libraries in the checkout: what `make check-wheel` asks of the wheel's."""
    path = ROOT / 'ops_dcn' / f'{name}.so'
    if not path.is_file():
        pytest.skip(f'{name}.so is not built here')
    audit = check_wheel.Audit(Path(NAME))
    audit.check_library(f'ops_dcn/{name}.so', path.read_bytes(),
                        check_wheel.LIBRARIES[f'ops_dcn/{name}.so'])
    assert not audit.problems
    assert audit.glibc <= (2, 28)
    assert audit.libstdcxx <= (3, 25)
