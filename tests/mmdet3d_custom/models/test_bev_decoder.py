"""The decoder's groups, masks and references."""
from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet3d_custom')
from mmcv.cnn.bricks.transformer import MultiheadAttention  # noqa: E402

from mmdet3d_custom.models.bev_decoder import (  # noqa: E402
    BEVFormerDecoder,
    GroupMultiheadAttention,
    run_in_float32,
)


def test_one_group_is_the_attention_of_mmcv():
    ours = GroupMultiheadAttention(8, 2).eval()
    theirs = MultiheadAttention(8, 2, batch_first=True).eval()
    theirs.load_state_dict(ours.state_dict())
    query, pos = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[False] * 5, [False, True, False, False, True]])
    torch.testing.assert_close(
        ours(query, query_pos=pos, key_padding_mask=mask),
        theirs(query, query_pos=pos, key_pos=pos, key_padding_mask=mask))


def test_groups_do_not_see_each_other():
    attention = GroupMultiheadAttention(8, 2).eval()
    query, pos = torch.randn(2, 12, 8), torch.randn(2, 12, 8)
    mask = torch.rand(2, 12) < 0.3
    mask[:, ::4] = False
    got = attention(query, query_pos=pos, key_padding_mask=mask, num_groups=3)
    for group in range(3):
        part = slice(4 * group, 4 * group + 4)
        alone = attention(query[:, part], query_pos=pos[:, part], key_padding_mask=mask[:, part])
        torch.testing.assert_close(got[:, part], alone)
    with pytest.raises(ValueError, match='num_groups is not valid: got 5'):
        attention(query, num_groups=5)


def test_dropout_is_on_weights_and_output():
    attention = GroupMultiheadAttention(8, 2, dropout=0.25)
    assert attention.attn.dropout == 0.25
    assert attention.dropout_layer.p == 0.25
    with pytest.raises(ValueError, match='batch_first'):
        GroupMultiheadAttention(8, 2, batch_first=False)


def branches(layers: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(8, 10) for _ in range(layers))


def test_references_follow_the_codes():
    decoder, regress = BEVFormerDecoder(3, 8, 16, num_heads=2).eval(), branches(3)
    with torch.no_grad():
        for branch in regress:
            branch.weight.mul_(5)
    reference = torch.rand(2, 4, 3).requires_grad_()
    got = decoder(torch.randn(2, 4, 8), torch.randn(2, 4, 8), torch.randn(2, 6, 8), reference,
                  (2, 3), regress)
    assert got.references[0] is reference
    expected = reference.detach()
    for layer in range(3):
        torch.testing.assert_close(got.references[layer].detach(), expected)
        torch.testing.assert_close(got.raw_codes[layer], regress[layer](got.states[layer]))
        delta = got.raw_codes[layer][..., [0, 1, 4]]
        expected = (delta + torch.logit(expected, eps=1e-5)).sigmoid().detach()
    assert not any(each.requires_grad for each in got.references[1:])


def test_references_are_x_and_y_of_the_map():
    # With zero offsets a query samples the very cell that its reference points at.
    decoder = BEVFormerDecoder(1, 8, 16, num_heads=2, dropout=0.0).eval()
    attention = decoder.layers[0].attentions[1]
    nn.init.zeros_(attention.sampling_offsets.bias)
    bev = torch.zeros(1, 6, 8)
    bev[0, 1 * 3 + 2] = 1  # row 1, column 2 of 2 x 3
    cells = torch.tensor([[(column + 0.5) / 3, (row + 0.5) / 2, 0.5]
                          for row in range(2) for column in range(3)])
    zeros = torch.zeros(1, 6, 8)
    got = decoder(zeros, zeros, bev, cells[None], (2, 3), branches(1)).states[0][0]
    empty = decoder(zeros, zeros, zeros, cells[None], (2, 3), branches(1)).states[0][0]
    changed = (got - empty).abs().amax(-1) > 1e-4
    assert changed.tolist() == [False, False, False, False, False, True]


def test_ignored_queries_change_nothing():
    decoder, regress = BEVFormerDecoder(2, 8, 16, num_heads=2).eval(), branches(2)
    query, pos, bev = torch.randn(1, 6, 8), torch.randn(1, 6, 8), torch.randn(1, 6, 8)
    reference, ignored = torch.rand(1, 6, 3), torch.zeros(1, 6, dtype=torch.bool)
    ignored[0, [2, 5]] = True  # the last of each of two groups
    got = decoder(query, pos, bev, reference, (2, 3), regress, 2, ignored)
    kept = [0, 1, 3, 4]
    alone = decoder(query[:, kept], pos[:, kept], bev, reference[:, kept], (2, 3), regress, 2)
    torch.testing.assert_close(got.states[-1][:, kept], alone.states[-1])


def test_branches_run_in_float32():
    branch, states = nn.Linear(8, 10), torch.randn(3, 8)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert branch(states).dtype == torch.bfloat16
        got = run_in_float32(branch, states)
    assert torch.equal(got, branch(states))
