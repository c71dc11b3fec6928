"""What the user allows while checkpoints are loaded; holds for every way a file is reached."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class LoadingPolicy:
    """How far checkpoints are trusted.

    Args:
        trust: Unpickle whatever a file holds, which can run any code.
        min_match: Least share of a model's tensors that a checkpoint must fill, 0 to 1.
    """

    trust: bool = False
    min_match: float = 0.99


_CURRENT: ContextVar[LoadingPolicy | None] = ContextVar('loading_policy', default=None)


def current_policy() -> LoadingPolicy:
    """The policy in force: safe and strict unless :func:`loading_policy` says otherwise."""
    return _CURRENT.get() or LoadingPolicy()


@contextmanager
def loading_policy(trust: bool = False, min_match: float | None = None) -> Iterator[None]:
    """Load under another policy within the block, in this thread only.

    Args:
        trust: See :class:`LoadingPolicy`.
        min_match: See :class:`LoadingPolicy`; None keeps 0.99.
    """
    share = LoadingPolicy.min_match if min_match is None else min_match
    token = _CURRENT.set(LoadingPolicy(trust, share))
    try:
        yield
    finally:
        _CURRENT.reset(token)
