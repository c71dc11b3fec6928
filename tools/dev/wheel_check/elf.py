"""What a shared library asks of the system it is loaded on, read from its ELF file.

Little-endian ELF64 only, with the dynamic section found through the section headers: what the
linkers of Linux on x86-64 and arm64 write.
"""
from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_DYNAMIC, _NO_BITS, _DYNSYM, _VERSYM, _VERNEED = 6, 8, 11, 0x6fffffff, 0x6ffffffe
_NEEDED, _RPATH, _RUNPATH = 1, 15, 29
_UNDEFINED, _LOCAL, _WEAK = 0, 0, 2


class ElfError(Exception):
    """The file is no shared library of the kind that is read here."""


@dataclass(frozen=True)
class Symbol:
    """A symbol that another library must have; ``version`` is empty where none is asked for."""

    name: str
    version: str
    weak: bool


@dataclass(frozen=True)
class _Section:
    kind: int
    data: bytes
    link: int


class Elf:
    """The dynamic section and the dynamic symbols of a shared library.

    Attributes:
        needed: Names of the libraries it asks for.
        search_path: Its run path; empty where there is none.
        undefined: Symbols that come from elsewhere.
        exported: Names of the symbols that it offers.
    """

    def __init__(self, data: bytes) -> None:
        if data[:6] != b'\x7fELF\x02\x01' or len(data) < 64:
            raise ElfError('got no little-endian ELF64 file')
        try:
            self._read(data)
        except (struct.error, IndexError, ValueError) as error:
            raise ElfError(f'got a damaged file: {error}') from error

    def _read(self, data: bytes) -> None:
        self._sections = list(self._read_sections(data))
        dynamic = self._one(_DYNAMIC, 'dynamic section')
        strings = self._sections[dynamic.link].data
        entries = list(struct.iter_unpack('<qQ', dynamic.data))
        self.needed = [_text(strings, value) for tag, value in entries if tag == _NEEDED]
        self.search_path = ':'.join(
            _text(strings, value) for tag, value in entries if tag in (_RPATH, _RUNPATH))
        self.undefined: list[Symbol] = []
        self.exported: list[str] = []
        self._read_symbols()

    @staticmethod
    def _read_sections(data: bytes) -> Iterator[_Section]:
        offset, = struct.unpack_from('<Q', data, 40)
        size, count = struct.unpack_from('<HH', data, 58)
        if size != 64 or offset + size * count > len(data):
            raise ElfError('got a file that is cut off or has no section headers')
        for i in range(count):
            _, kind, _, _, start, length, link, _, _, _ = struct.unpack_from(
                '<IIQQQQIIQQ', data, offset + i * size)
            if kind != _NO_BITS and start + length > len(data):
                raise ElfError('got a file that is cut off')
            yield _Section(kind, b'' if kind == _NO_BITS else data[start:start + length], link)

    def _one(self, kind: int, name: str) -> _Section:
        found = [section for section in self._sections if section.kind == kind]
        if len(found) != 1:
            raise ElfError(f'got {len(found)} of {name}, expected one')
        return found[0]

    def _read_symbols(self) -> None:
        table = self._one(_DYNSYM, 'dynamic symbol table')
        strings = self._sections[table.link].data
        versions = self._versions()
        numbers = [number for section in self._sections if section.kind == _VERSYM
                   for number, in struct.iter_unpack('<H', section.data)]
        for i, (name, info, _, section, _, _) in enumerate(
                struct.iter_unpack('<IBBHQQ', table.data)):
            binding, text = info >> 4, _text(strings, name)
            if not text or binding == _LOCAL:
                continue
            if section == _UNDEFINED:
                version = versions.get(numbers[i] & 0x7fff, '') if numbers else ''
                self.undefined.append(Symbol(text, version, binding == _WEAK))
            else:
                self.exported.append(text)

    def _versions(self) -> dict[int, str]:
        """Version names by their number in the table of symbol versions."""
        names: dict[int, str] = {}
        for section in self._sections:
            if section.kind != _VERNEED:
                continue
            strings, at = self._sections[section.link].data, 0
            while True:
                _, count, _, first, following = struct.unpack_from('<HHIII', section.data, at)
                entry = at + first
                for _ in range(count):
                    _, _, number, name, step = struct.unpack_from('<IHHII', section.data, entry)
                    names[number] = _text(strings, name)
                    entry += step
                if not following:
                    break
                at += following
        return names


def _text(strings: bytes, offset: int) -> str:
    return strings[offset:strings.index(b'\0', offset)].decode()
