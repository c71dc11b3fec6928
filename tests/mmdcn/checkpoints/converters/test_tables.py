"""Positions, relative positions and patch filters of another size."""
from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip('mmpretrain.models')

from mmdcn.checkpoints import CheckpointError
from mmdcn.checkpoints.converters import Options, convert
from mmdcn.checkpoints.converters.tables import (
    resize_patches,
    resize_positions,
    resize_relative,
)
from tests.mmdcn.checkpoints.converters.cases import HEADS, C, mae, random, timm


@pytest.mark.parametrize('lead', [0, 1, 2])
def test_positions_lose_the_leading_rows_first(lead):
    pos = random(1, lead + 196, C)
    assert torch.equal(resize_positions(pos), pos[:, lead:])
    assert torch.equal(resize_positions(pos, (14, 14)), pos[:, lead:])


def test_positions_are_interpolated_as_an_image():
    pos = random(1, 197, C)
    got = resize_positions(pos, (20, 9))
    image = pos[0, 1:].T.reshape(1, C, 14, 14)
    expected = F.interpolate(image, (20, 9), mode='bicubic', align_corners=False)
    torch.testing.assert_close(got, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)
    assert convert(mae(), 'mae', Options(pos_grid=(20, 9))).resized['pos_embed'] == (
        (1, 197, C), (1, 180, C))
    with pytest.raises(CheckpointError, match='pos_embed is not valid: got 199 rows'):
        resize_positions(random(1, 199, C))


@pytest.mark.parametrize('method', ['bicubic', 'geometric'])
def test_relative_tables(method):
    table = random(732, HEADS)
    assert torch.equal(resize_relative(table, 27, method), table[:729])
    grown = resize_relative(table, 127, method)
    assert grown.shape == (127 * 127, HEADS)
    centre = grown.view(127, 127, HEADS)[63, 63]
    torch.testing.assert_close(centre, table[:729].view(27, 27, HEADS)[13, 13])
    # Rows are dy, columns dx: a table that depends on dy alone stays so.
    rows = torch.arange(27.).repeat_interleave(27)[:, None]
    wide = resize_relative(rows, 127, method).view(127, 127)
    torch.testing.assert_close(wide, wide[:, :1].expand(127, 127), rtol=1e-4, atol=1e-4)
    assert wide[126, 0] > wide[63, 0] > wide[0, 0]


def test_geometric_tables_keep_near_and_far():
    table = random(729, HEADS)
    small, large = table.view(27, 27, HEADS), resize_relative(table, 127, 'geometric').view(
        127, 127, HEADS)
    torch.testing.assert_close(large[62:65, 62:65], small[12:15, 12:15], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(large[::126, ::126], small[::26, ::26], rtol=1e-4, atol=1e-4)
    with pytest.raises(CheckpointError, match="use `table_resize='bicubic'`"):
        resize_relative(table, 13, 'geometric')
    with pytest.raises(CheckpointError, match='got 730 rows'):
        resize_relative(random(730, HEADS), 27)


def test_patches_are_resampled():
    weight = random(C, 3, 14, 14)
    assert resize_patches(weight, 14) is weight
    result = convert({'model': timm(side=16, patch=14)}, 'mae', Options(pos_grid=(14, 14)))
    assert result.resized == {
        'patch_embed.proj.weight': ((C, 3, 14, 14), (C, 3, 16, 16)),
        'pos_embed': ((1, 257, C), (1, 196, C))}
    assert not convert({'model': timm(patch=14)}, 'mae', Options(patch_size=14)).resized.keys() - {
        'pos_embed'}
    torch.testing.assert_close(resize_patches(torch.ones(1, 3, 14, 14), 16),
                               torch.ones(1, 3, 16, 16))
