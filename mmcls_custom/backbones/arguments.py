"""Checks of constructor arguments that the backbones share."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NoReturn


def refuse(name: str, got: Any, expected: str) -> NoReturn:
    """Raise the ``ValueError`` for an argument that is not valid."""
    raise ValueError(f'{name} is not valid: got {got!r}, expected {expected}')


def resolve_arch(owner: type, arch_class: type, arch: str | Mapping[str, Any] | None,
                 settings: Mapping[str, Any], required: Sequence[str],
                 defaults: Mapping[str, Any] | None = None) -> Any:
    """An object of ``arch_class`` from a preset and the keywords given beside it, which win.

    Args:
        owner: Backbone with the presets, ``owner.archs``.
        arch_class: Dataclass whose fields are the settings.
        arch: Name of a preset, a mapping of fields, or None.
        settings: Fields given by keyword.
        required: Fields that neither a default nor a guess can replace.
        defaults: Fields that hold where nothing else says so.

    Raises:
        ValueError: Unknown preset or field, or a required field is missing.
    """
    if isinstance(arch, str):
        if arch not in owner.archs:
            refuse('arch', arch, f'one of {", ".join(owner.archs)}')
        arch = owner.archs[arch]
    merged = {**(defaults or {}), **(arch or {}), **settings}
    known = [field.name for field in fields(arch_class)]
    for name in merged:
        if name not in known:
            refuse(f'{owner.__name__} setting', name, f'one of {", ".join(known)}')
    for name in required:
        if name not in merged:
            refuse(name, None, f'a value, or arch={"|".join(owner.archs)}')
    return arch_class(**merged)


def check_out_indices(out_indices: Sequence[int], count: int, what: str) -> tuple[int, ...]:
    """``out_indices`` as a tuple; ``ValueError`` unless they rise within 0..count-1."""
    found = tuple(out_indices)
    if not found or sorted(set(found)) != list(found) or not set(found) <= set(range(count)):
        refuse('out_indices', out_indices, f'rising {what} numbers within 0..{count - 1}')
    return found


def resolve_out_indices(out_indices: int | Sequence[int], count: int, what: str) -> list[int]:
    """Rising numbers of the stages to return, negative ones counted from the last.

    Args:
        out_indices: As mmpretrain's backbones take them.
        count: Number of stages.
        what: What they are called, for the message.

    Raises:
        ValueError: None is given, or one is out of bounds.
    """
    given = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    if not given or not all(-count <= index < count for index in given):
        refuse('out_indices', out_indices, f'{what} numbers within {-count}..{count - 1}')
    return sorted({index % count for index in given})
