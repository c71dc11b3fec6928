"""Checks of arguments for functions and layers; every refusal says name, got, expected, remedy."""
from __future__ import annotations

from typing import Any, NoReturn

import torch

from ops_dcn.reference import IntPair

# Sizes and steps stay below 2^31, so that no position and no product of two leaves 64 bits.
LARGEST = 2**31 - 1
_FLOAT32_MAX, _FLOAT64_MAX = (torch.finfo(kind).max for kind in (torch.float32, torch.float64))
_CORRECT = 'correct this argument'


def refuse(name: str, got: object, expected: str, remedy: str = _CORRECT) -> NoReturn:
    """Raise the ValueError of an argument."""
    raise ValueError(f'{name} is not valid: got {got}, expected {expected}; {remedy}')


def expect_int(name: str, value: int, least: int) -> None:
    """Refuse what is no int from ``least`` to the largest that kernels index."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        refuse(name, repr(value), f'an int of at least {least}')
    if value > LARGEST:
        refuse(name, value, f'at most {LARGEST}')


def expect_axes(name: str, value: IntPair, least: int) -> tuple[int, int]:
    """(h, w) of an option given as an int or a pair."""
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2:
        refuse(name, repr(value), 'an int or an (h, w) pair')
    for item in both:
        expect_int(name, item, least)
    return both


def expect_flag(name: str, value: bool) -> bool:
    """The flag, which may be given as 0 or 1."""
    if not isinstance(value, int) or value not in (0, 1):
        refuse(name, repr(value), 'True or False')
    return bool(value)


def expect_scale(offset_scale: float, dtype: torch.dtype) -> float:
    """The scale, finite in the type in which positions of ``dtype`` are computed."""
    # math.isfinite cannot be traced where the compiler makes the number symbolic.
    largest = _FLOAT64_MAX if dtype == torch.float64 else _FLOAT32_MAX
    if (not isinstance(offset_scale, (int, float)) or isinstance(offset_scale, bool)
            or not -largest <= offset_scale <= largest):
        refuse('offset_scale', repr(offset_scale), f'a finite number of at most {largest:.4g} '
               f'(positions of {dtype} are computed with it)')
    return float(offset_scale)


def expect_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse what is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        refuse(name, repr(value), f'one of {choices}')


def expect_divisor(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Refuse a value that is no positive multiple of another argument."""
    ints = all(isinstance(number, int) and not isinstance(number, bool)
               and 1 <= number <= LARGEST for number in (value, divisor))
    if not ints or value % divisor:
        refuse(name, repr(value), f'a positive multiple of {divisor_name} ({divisor!r})',
               'change either')
