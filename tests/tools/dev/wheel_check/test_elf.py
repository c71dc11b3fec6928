"""The reader of ELF files: libraries written by hand, and damaged in every way."""
from __future__ import annotations

import random

import pytest

from tests.tools.dev.wheel_check.libraries import (
    GLOBAL,
    LOCAL,
    NEEDED,
    RPATH,
    RUNPATH,
    SONAME,
    WEAK,
    Library,
)
from tools.dev.wheel_check.elf import Elf, ElfError, Symbol

DYNAMIC = [(SONAME, 'me.so'), (NEEDED, 'libc.so.6'), (NEEDED, 'libm.so.6'), (RUNPATH, '/here')]
SYMBOLS = [('memcpy', GLOBAL, False, 'GLIBC_2.14'), ('sin', GLOBAL, False, 'GLIBC_2.2.5'),
           ('torch_f', GLOBAL, False, ''), ('__gmon_start__', WEAK, False, ''),
           ('ops_dcn_run', GLOBAL, True, ''), ('ops_dcn_weak', WEAK, True, ''),
           ('inside', LOCAL, True, ''), ('', GLOBAL, False, '')]


@pytest.mark.parametrize('headers_first', [False, True])
@pytest.mark.parametrize('hidden', [False, True])
def test_everything_is_read(headers_first: bool, hidden: bool) -> None:
    elf = Elf(Library(DYNAMIC, SYMBOLS, hidden, headers_first).write())
    assert elf.needed == ['libc.so.6', 'libm.so.6']
    assert elf.search_path == '/here'
    assert elf.undefined == [
        Symbol('memcpy', 'GLIBC_2.14', False), Symbol('sin', 'GLIBC_2.2.5', False),
        Symbol('torch_f', '', False), Symbol('__gmon_start__', '', True)]
    assert elf.exported == ['ops_dcn_run', 'ops_dcn_weak']


def test_both_kinds_of_run_path_are_found() -> None:
    library = Library([(RPATH, '/old'), (RUNPATH, '$ORIGIN/lib')])
    assert Elf(library.write()).search_path == '/old:$ORIGIN/lib'


def test_a_library_that_asks_for_nothing() -> None:
    elf = Elf(Library().write())
    assert (elf.needed, elf.search_path, elf.undefined, elf.exported) == ([], '', [], [])


def test_without_a_table_of_versions_nothing_has_one() -> None:
    elf = Elf(Library(symbols=SYMBOLS, skip=(0x6fffffff, 0x6ffffffe)).write())
    assert [symbol.version for symbol in elf.undefined] == [''] * 4


@pytest.mark.parametrize(('kind', 'name'), [(6, 'dynamic section'), (11, 'dynamic symbol table')])
def test_what_is_missing_is_named(kind: int, name: str) -> None:
    with pytest.raises(ElfError, match=f'got 0 of {name}, expected one'):
        Elf(Library(DYNAMIC, SYMBOLS, skip=(kind,)).write())


@pytest.mark.parametrize(('at', 'byte'), [(0, 0), (4, 1), (5, 2)], ids=['magic', '32', 'big'])
def test_other_kinds_of_files_are_refused(at: int, byte: int) -> None:
    data = bytearray(Library(DYNAMIC, SYMBOLS).write())
    data[at] = byte
    with pytest.raises(ElfError, match='got no little-endian ELF64 file'):
        Elf(bytes(data))


@pytest.mark.parametrize('headers_first', [False, True])
def test_files_cut_off_anywhere_are_refused(headers_first: bool) -> None:
    data = Library(DYNAMIC, SYMBOLS, headers_first=headers_first).write()
    for length in range(len(data)):
        with pytest.raises(ElfError, match='got'):
            Elf(data[:length])


@pytest.mark.parametrize('headers_first', [False, True])
def test_damaged_bytes_never_end_in_another_error(headers_first: bool) -> None:
    whole = Library(DYNAMIC, SYMBOLS, headers_first=headers_first).write()
    draw, refused = random.Random(0), 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.choice([0, 1, 0x7f, 0xff, draw.randrange(256)])
        try:
            Elf(bytes(data))
        except ElfError as error:
            assert 'got' in str(error)
            refused += 1
    assert 300 < refused < 3000
