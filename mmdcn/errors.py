"""Errors that one clear message explains."""
from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, and what to do."""


def suggest(name: str, known: Iterable[str]) -> str:
    """``; did you mean A, B?`` for names close to ``name``, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f'; did you mean {" or ".join(close)}?' if close else ''
