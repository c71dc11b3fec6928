"""Errors that one clear message explains."""
from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, and what to do.

    It reads ``NAME is not valid: FOUND, expected EXPECTED; REMEDY`` and names arguments as Python
    does, within backquotes in the other parts (``allow less with `min_match```); command lines
    turn these into their own flags.

    Attributes:
        name: Argument, key or thing that is not valid.
        found: What it is, commonly ``got ...``.
        expected: What it should be; may be empty.
        remedy: What to do; may be empty.
        details: Further lines; may be empty.
    """

    def __init__(self, name: str, found: str, expected: str = '', remedy: str = '',
                 details: str = '') -> None:
        super().__init__(name, found, expected, remedy, details)
        self.name = name
        self.found = found
        self.expected = expected
        self.remedy = remedy
        self.details = details

    def __str__(self) -> str:
        expected = f', expected {self.expected}' if self.expected else ''
        remedy = f'; {self.remedy}' if self.remedy else ''
        details = f'\n{self.details}' if self.details else ''
        return f'{self.name} is not valid: {self.found}{expected}{remedy}{details}'


class SampleError(UserError):
    """A sample is wrong, which only the process that reads it knows: it says so whatever its rank.

    Torch hands over what a worker process of a data loader raised as text: :func:`relayed_error`.
    """


def relayed_error(error: Exception) -> SampleError | None:
    """The SampleError that a worker process of a data loader raised, or None for other errors."""
    text, kind = str(error), f'{SampleError.__module__}.{SampleError.__qualname__}: '
    if not text.startswith('Caught SampleError in DataLoader worker') or kind not in text:
        return None
    name, _, rest = text[text.rindex(kind) + len(kind):].strip().partition(' is not valid: ')
    return SampleError(name, rest)


def suggest(name: str, known: Iterable[str]) -> str:
    """``did you mean A or B?`` for names close to ``name``, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f'did you mean {" or ".join(close)}?' if close else ''


def shorten_text(text: str, limit: int = 300) -> str:
    """A text of others in one line of at most ``limit`` characters."""
    line = ' '.join(text.split())
    return line if len(line) <= limit else f'{line[:limit - 4]} ...'
