"""Blocks and tables of the plain ViT, by the formulas."""
from __future__ import annotations

import torch
from torch.nn import functional as F

from mmcls_custom.backbones.plain_vit_layers import Block, RelativePositionBias
from tests.mmcls_custom.backbones.test_plain_vit import randomise, table_bias


def test_layer_scale_and_stochastic_depth_act_on_both_branches():
    block = randomise(Block(16, 2, 32, layer_scale=0.5)).double()
    x = torch.randn(2, 4, 4, 16, dtype=torch.float64)
    attended = block.gamma_1 * block.attn(block.norm1(x))
    torch.testing.assert_close(
        block(x), x + attended + block.gamma_2 * block.mlp(block.norm2(x + attended)))
    dropping = Block(16, 2, 32, drop_path=1 - 1e-9).train()
    assert torch.equal(dropping(x.float()), x.float())
    assert not torch.equal(dropping.eval()(x.float()), x.float())


def test_shared_table_by_the_index_rule():
    bias = randomise(RelativePositionBias(4, 3))
    assert torch.equal(bias(4, 4), table_bias(bias.relative_position_bias_table, 4, 4))
    # A map of another size: the table is resized, the rule stays.
    square = bias.relative_position_bias_table.t().reshape(1, 3, 7, 7)
    table = F.interpolate(square, (5, 11), mode='bicubic').reshape(3, 55).t()
    assert torch.equal(bias(3, 6), table_bias(table, 3, 6))
