"""ViT with DCNv4: its blocks and outputs."""
from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip('mmpretrain')

from mmcls_custom.backbones.vision_transformer import DeformableVisionTransformer
from tests.mmcls_custom.backbones.test_convnext import VIT, wake


def test_blocks_of_deformable_vit():
    model = DeformableVisionTransformer(VIT, img_size=64, out_indices=(0, -1))
    outs = model(torch.randn(1, 3, 80, 33))
    assert [tuple(out.shape) for out in outs] == [(1, 32, 5, 3)] * 2
    pooled, = DeformableVisionTransformer(VIT, img_size=64, out_type='avg_featmap')(
        torch.randn(1, 3, 80, 33))
    assert pooled.shape == (1, 32)


def test_vit_block_is_norm_dcn_norm_mlp():
    model = wake(DeformableVisionTransformer(VIT, img_size=64, final_norm=False).eval())
    x = torch.randn(1, 3, 32, 48)
    tokens, size = model.patch_embed(x)
    grid = tokens.unflatten(1, size) + nn.functional.interpolate(
        model.pos_embed.reshape(1, 4, 4, 32).permute(0, 3, 1, 2), size, mode='bicubic',
        align_corners=False).permute(0, 2, 3, 1)
    for layer in model.layers:
        grid = grid + layer.attn.dcn(layer.ln1(grid))
        grid = grid + layer.ffn.layers(layer.ln2(grid))
    torch.testing.assert_close(model(x)[0], grid.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)
