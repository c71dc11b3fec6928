"""Shared libraries written by hand, byte by byte, for the reader of ELF files."""
from __future__ import annotations

import struct
from dataclasses import dataclass, field

NEEDED, SONAME, RPATH, RUNPATH = 1, 14, 15, 29
GLOBAL, WEAK, LOCAL = 1, 2, 0


@dataclass
class Library:
    """What to write.

    Attributes:
        dynamic: (Tag, text) of the dynamic section.
        symbols: (Name, binding, defined, version) of the dynamic symbols.
        hidden: Whether the numbers of versions carry the bit that hides them.
        headers_first: Whether the section headers stand before the sections, not at the end.
        skip: Kinds of sections that are left out.
    """

    dynamic: list[tuple[int, str]] = field(default_factory=list)
    symbols: list[tuple[str, int, bool, str]] = field(default_factory=list)
    hidden: bool = False
    headers_first: bool = False
    skip: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._texts = b'\0'

    def _text(self, text: str) -> int:
        self._texts += text.encode() + b'\0'
        return len(self._texts) - len(text) - 1

    def _versions(self) -> tuple[bytes, dict[str, int]]:
        """The section of needed versions, one library each, and the number of each version."""
        names = sorted({version for *_, version in self.symbols if version})
        numbers = {name: 2 + i for i, name in enumerate(names)}
        data = b''
        for i, name in enumerate(names):
            following = 32 if i + 1 < len(names) else 0
            data += struct.pack('<HHIII', 1, 1, self._text(f'lib{i}.so'), 16, following)
            data += struct.pack('<IHHII', 0, 0, numbers[name], self._text(name), 0)
        return data, numbers

    def sections(self) -> list[tuple[int, bytes, int]]:
        """(Kind, data, link) of every section; the texts are the first after the empty one."""
        verneed, numbers = self._versions()
        table, versym = bytes(24), struct.pack('<H', 0)
        for name, binding, defined, version in self.symbols:
            table += struct.pack('<IBBHQQ', self._text(name), binding << 4, 0, int(defined), 0, 0)
            number = numbers.get(version, 1) | (0x8000 if self.hidden else 0)
            versym += struct.pack('<H', number)
        dynamic = b''.join(struct.pack('<qQ', tag, self._text(text)) for tag, text in self.dynamic)
        made = [(0, b'', 0), (3, self._texts, 0), (6, dynamic + bytes(16), 1), (11, table, 1),
                (0x6fffffff, versym, 3), (8, b'', 0)]
        if verneed:
            made.append((0x6ffffffe, verneed, 1))
        return [section for section in made if section[0] not in self.skip]

    def write(self) -> bytes:
        """The file."""
        sections = self.sections()
        size = 64 * len(sections)
        at = 64 + (size if self.headers_first else 0)
        headers, body = b'', b''
        for kind, data, link in sections:
            # A section of zeros (8) takes no room in the file, however long it is in memory.
            length = 1 << 40 if kind == 8 else len(data)
            headers += struct.pack('<IIQQQQIIQQ', 0, kind, 0, 0, at, length, link, 0, 1, 0)
            body, at = body + data, at + len(data)
        start = struct.pack('<6s10xHHIQQQIHHHHHH', b'\x7fELF\x02\x01', 3, 62, 1, 0, 0,
                            64 if self.headers_first else 64 + len(body), 0, 64, 0, 0, 64,
                            len(sections), 0)
        return start + (headers + body if self.headers_first else body + headers)
