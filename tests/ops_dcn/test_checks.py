"""Layers refuse every argument that is not valid, with name, got, expected and remedy."""
from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from ops_dcn import DCNv3, DCNv4, DCNv4Conv2d, FlashDeformAttn
from ops_dcn._checks import expect_axes, expect_divisor, expect_flag, expect_scale
from ops_dcn.ablation import DCNv3Unshared

BASES: dict[type[nn.Module], dict[str, Any]] = {
    DCNv3: dict(channels=8, group=2), DCNv4: dict(channels=16, group=1),
    DCNv3Unshared: dict(channels=8, group=2),
    DCNv4Conv2d: dict(in_channels=4, out_channels=8),
    FlashDeformAttn: dict(d_model=8, n_levels=2, n_heads=2, n_points=2)}
LAYER = ('channels', 'kernel_size', 'stride', 'pad', 'dilation', 'group')
COUNTS = {DCNv3: LAYER, DCNv4: LAYER, DCNv3Unshared: LAYER,
          DCNv4Conv2d: ('in_channels', 'out_channels', 'kernel_size', 'stride', 'padding',
                        'dilation', 'groups'),
          FlashDeformAttn: ('d_model', 'n_levels', 'n_heads', 'n_points')}
NO_COUNTS = (-1, 2.5, '3', None, True, 2**31, 2**61, (3,), (1, 2, 3), float('nan'))
FOUR_PARTS = r'(?s)\w[\w, ]* is not valid: got .+, expected .+; .+'


def refuse(layer: type[nn.Module], name: str, wrong: Any) -> None:
    with pytest.raises(ValueError) as caught:
        layer(**{**BASES[layer], name: wrong})
    assert re.fullmatch(FOUR_PARTS, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(('layer', 'name'),
                         [(layer, name) for layer, names in COUNTS.items() for name in names])
def test_no_counts(layer: type[nn.Module], name: str) -> None:
    for wrong in NO_COUNTS if name in ('pad', 'padding') else (0, *NO_COUNTS):
        refuse(layer, name, wrong)


@pytest.mark.parametrize('layer', [DCNv3, DCNv4, DCNv3Unshared, DCNv4Conv2d])
def test_no_scales(layer: type[nn.Module]) -> None:
    for wrong in (float('nan'), float('inf'), '1', None, True, (1.0,), 10**400):
        refuse(layer, 'offset_scale', wrong)


@pytest.mark.parametrize('layer', [DCNv3, DCNv4, DCNv3Unshared])
def test_no_flags_and_kernels(layer: type[nn.Module]) -> None:
    for wrong in (None, 'yes', 2, -1, 0.5):
        refuse(layer, 'remove_center', wrong)
    if layer is not DCNv3Unshared:
        for wrong in (0, -1, 2, 2.5, '3', True, (3,)):
            refuse(layer, 'dw_kernel_size', wrong)


def test_what_is_valid_passes() -> None:
    assert expect_axes('x', [2, 3], 1) == (2, 3) and expect_axes('x', 0, 0) == (0, 0)
    assert expect_flag('x', 1) is True and expect_flag('x', False) is False
    assert expect_scale(1e39, torch.float64) == 1e39 and expect_scale(2, torch.float16) == 2.0
    expect_divisor('x', 6, 'y', 3)
