"""Necks of the InternImage classifiers."""
from __future__ import annotations

import pytest
import torch

from mmcls_custom.necks import InternImageClipNeck, InternImageConvNeck


def test_clip_neck_refuses_odd_sizes():
    neck = InternImageClipNeck((4, 8), channels=16, num_heads=2, out_channels=8)
    with pytest.raises(ValueError, match='divisible by 32'):
        neck((torch.zeros(1, 4, 5, 5), torch.zeros(1, 8, 3, 3)))


def test_conv_neck_takes_the_last_map_to_a_vector():
    neck = InternImageConvNeck(16).train()
    x = torch.randn(4, 16, 3, 5)
    out, = neck((torch.zeros(1), x))
    assert out.shape == (4, neck.out_channels)
    out.square().sum().backward()
    assert all(param.grad is not None for param in neck.parameters())
    neck.eval()
    torch.testing.assert_close(neck((x[:1],))[0], neck((x,))[0][:1])


def test_clip_neck_pools_two_maps():
    neck = InternImageClipNeck((8, 16), channels=16, num_heads=2, out_channels=8).eval()
    maps = torch.randn(2, 8, 4, 6), torch.randn(2, 16, 2, 3)
    out, = neck(maps)
    assert out.shape == (2, neck.out_channels)
    single, = neck(tuple(x[1:] for x in maps))
    torch.testing.assert_close(out[1:], single)
