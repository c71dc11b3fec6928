"""InternImage's design rules: four numbers give a model, one number scales it.

Source: W. Wang et al., arXiv:2211.05778, section 3.3. Stacking rules: C_i = 2^(i-1) C_1,
G_i = C_i / C', L_1 = L_2 = L_4 and L_1 <= L_3. Compound scaling multiplies the depth by
``ALPHA**phi`` and the width by ``BETA**phi``; since ALPHA * BETA**1.99 is about 2, each step of
phi doubles the operations.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any

ALPHA = 1.09
BETA = 1.36
WIDTH_EXPONENT = 1.99  # operations grow with this power of the width


@dataclass(frozen=True)
class Stacking:
    """The four free numbers of an InternImage.

    Args:
        channels: C_1, width of the first level; it doubles from level to level.
        group_channels: C', channels per deformable group, the same in all levels.
        depth: L_1, blocks of the first, second and fourth level.
        main_depth: L_3, blocks of the third level.

    Raises:
        ValueError: the numbers break a rule, named in the message.
    """

    channels: int
    group_channels: int
    depth: int
    main_depth: int

    def __post_init__(self) -> None:
        if min(self.channels, self.group_channels, self.depth) < 1:
            raise ValueError(f'Stacking is not valid: got {self}, expected positive numbers')
        if self.channels % self.group_channels:
            raise ValueError(f'channels is not valid: got {self.channels}, expected a multiple '
                             f'of group_channels = {self.group_channels}')
        if self.main_depth < self.depth:
            raise ValueError(f'main_depth is not valid: got {self.main_depth}, expected at least '
                             f'depth = {self.depth}')

    @property
    def depths(self) -> tuple[int, int, int, int]:
        """Blocks of the four levels."""
        return self.depth, self.depth, self.main_depth, self.depth

    @property
    def arch(self) -> dict[str, Any]:
        """Keywords ``channels``, ``depths`` and ``groups`` of :class:`InternImage`."""
        groups = tuple(2**level * self.channels // self.group_channels for level in range(4))
        return dict(channels=self.channels, depths=self.depths, groups=groups)

    @classmethod
    def of(cls, arch: Mapping[str, Any]) -> Stacking:
        """The four numbers of a preset such as ``InternImage.archs['base']``.

        Raises:
            ValueError: the preset does not follow the rules; published is one, ``'giant'``, whose
                last level has twice the blocks of the first.
        """
        channels, depths, groups = (arch[name] for name in ('channels', 'depths', 'groups'))
        found = cls(channels, channels // groups[0], depths[0], depths[2])
        expected = found.arch
        for name in expected:
            if tuple(_as_list(arch[name])) != tuple(_as_list(expected[name])):
                raise ValueError(f'{name} is not valid: got {arch[name]}, expected '
                                 f'{expected[name]} by the stacking rules')
        return found


ORIGIN = Stacking(channels=64, group_channels=16, depth=4, main_depth=18)


def scale(phi: float, origin: Stacking = ORIGIN, alpha: float = ALPHA, beta: float = BETA,
          group_channels: int | None = None) -> Stacking:
    """Scale depth and width together; ``phi = 0`` gives the origin.

    The paper does not say how it rounds. Here the width becomes the nearest multiple of C' (at
    least one) and L_1 the nearest integer; L_3 takes the rest of the nearest total depth.

    Args:
        phi: How often the operations double; may be negative.
        origin: Model at ``phi = 0``.
        alpha: Growth of the depth 3 L_1 + L_3 per step.
        beta: Growth of the width C_1 per step.
        group_channels: C' of the result, or None for the origin's.
    """
    unit = group_channels or origin.group_channels
    width = max(1, round(origin.channels * beta**phi / unit)) * unit
    total = round((3 * origin.depth + origin.main_depth) * alpha**phi)
    depth = max(1, round(origin.depth * alpha**phi))
    return Stacking(width, unit, depth, max(depth, total - 3 * depth))


def phi_of_width(channels: int, origin: Stacking = ORIGIN, beta: float = BETA) -> float:
    """The phi at which compound scaling reaches a width C_1."""
    return log(channels / origin.channels) / log(beta)


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, int) else list(value)
