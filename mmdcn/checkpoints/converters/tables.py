"""Resizing of what depends on the input size: positions, relative positions, patch filters."""
from __future__ import annotations

import math

import numpy as np
import torch
from scipy.interpolate import RectBivariateSpline
from scipy.optimize import brentq
from torch import Tensor
from torch.nn import functional as F

from mmdcn.checkpoints.loading import CheckpointError

# Class token to tokens, tokens to class token, class token to itself (BEiT).
_CLASS_ROWS = 3


def resize_positions(pos: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
    """Position embedding of the patches alone, resized on demand.

    Args:
        pos: (1, T + G*G, C): rows of T = 0, 1 or 2 leading tokens (class, distillation), then a
            square grid, row by row.
        grid: (H, W) to interpolate to (bicubic, half-pixel centres); None keeps G x G as it is.

    Returns:
        (1, H*W, C).

    Raises:
        CheckpointError: The rows are no square grid with 0 to 2 rows before it.
    """
    rows = pos.shape[1]
    lead = next((lead for lead in range(3) if math.isqrt(rows - lead)**2 == rows - lead), None)
    if lead is None:
        raise CheckpointError('pos_embed', f'got {rows} rows',
                              'a square grid with at most two rows before it',
                              'choose another family')
    side = math.isqrt(rows - lead)
    pos = pos[:, lead:]
    if grid is None or grid == (side, side):
        return pos
    image = _bicubic(pos.unflatten(1, (side, side)).permute(0, 3, 1, 2), grid)
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def resize_relative(table: Tensor, size: int, method: str = 'bicubic') -> Tensor:
    """Relative position table for windows of another size.

    Args:
        table: (S*S or S*S + 3, A) with odd S; the three last rows belong to a class token.
        size: Side of the new table, odd.
        method: ``'bicubic'`` (half-pixel centres), or ``'geometric'``, as BEiT's release
            (arXiv:2106.08254): the stored distances spread as a geometric series over the new
            ones, with a cubic spline between them.

    Returns:
        (size*size, A); an exact copy where S is ``size``.

    Raises:
        CheckpointError: The rows form no odd square, or ``size`` is smaller than S for
            ``'geometric'``.
    """
    rows = len(table)
    lead = next((n for n in (_CLASS_ROWS, 0) if math.isqrt(rows - n)**2 == rows - n
                 and math.isqrt(rows - n) % 2), None)
    if lead is None:
        raise CheckpointError('relative_position_bias_table', f'got {rows} rows',
                              'an odd square, with or without 3 class rows')
    side = math.isqrt(rows - lead)
    table = table[:side * side]
    if side == size:
        return table.clone()
    image = table.t().unflatten(1, (side, side))
    if method == 'bicubic':
        image = _bicubic(image[None], (size, size))[0]
    else:
        image = _geometric(image, size)
    return image.flatten(1).t().contiguous()


def _geometric(image: Tensor, size: int) -> Tensor:
    """(A, S, S) -> (A, size, size): distance k lies at (q**k - 1) / (q - 1) of the new ones."""
    far, wanted = image.shape[-1] // 2, size // 2
    if wanted < far:
        raise CheckpointError('size', f'got a table of side {size} from one of {2 * far + 1}',
                              'a larger one for geometric spacing', "use `table_resize='bicubic'`")
    ratio = brentq(lambda q: sum(q**i for i in range(far)) - wanted, 1.0, 10.0 * wanted)
    steps = np.cumsum([ratio**i for i in range(far)])
    known = np.concatenate([-steps[::-1], [0.0], steps])
    new = np.clip(np.arange(-wanted, wanted + 1), known[0], known[-1])
    planes = [RectBivariateSpline(known, known, plane)(new, new)
              for plane in image.double().numpy()]
    return torch.from_numpy(np.stack(planes)).to(image.dtype)


def resize_patches(weight: Tensor, size: int) -> Tensor:
    """Patch filters (C, 3, P, P) resampled bicubically to (C, 3, size, size)."""
    if weight.shape[-2:] == (size, size):
        return weight
    return _bicubic(weight, (size, size))


def _bicubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    # In double precision the centre of an odd table lands on the centre of the new one.
    resized = F.interpolate(image.double(), size, mode='bicubic', align_corners=False)
    return resized.to(image.dtype)
