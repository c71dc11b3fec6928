"""Fusion of BEV maps, and what stands in for missing frames."""
from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet3d_custom')
from mmdet3d_custom.models.temporal_fusion import ResNetFusion, fill_missing  # noqa: E402


@pytest.mark.parametrize(('valid', 'sources'), [
    ('11111', [0, 1, 2, 3, 4]), ('01111', [1, 1, 2, 3, 4]), ('10111', [0, 2, 2, 3, 4]),
    ('00111', [2, 2, 2, 3, 4]), ('11101', [0, 1, 2, 2, 4]), ('11110', [0, 1, 2, 3, 3]),
    ('00100', [2, 2, 2, 2, 2]),
])
def test_a_missing_frame_takes_its_neighbour_on_the_near_side(valid, sources):
    maps = [torch.full((2, 3, 1), float(index)) for index in range(5)]
    table = torch.tensor([[flag == '1' for flag in valid], [True] * 5])
    filled = fill_missing(maps, table, current=2)
    assert [int(each[0, 0, 0]) for each in filled] == sources
    assert [int(each[1, 0, 0]) for each in filled] == [0, 1, 2, 3, 4]  # per sample
    if valid == '00100':
        nobody = [None, None, maps[2], None, None]
        filled = fill_missing(nobody, table[:1], current=2)
        assert all(torch.equal(each, maps[2]) for each in filled)


def test_copies_are_detached_and_the_current_map_is_not():
    current = torch.randn(1, 2, 3, requires_grad=True)
    filled = fill_missing([None, current], torch.tensor([[False, True]]), current=1)
    assert filled[1] is current and not filled[0].requires_grad
    other = torch.zeros(1, 2, 3)
    filled = fill_missing([other, current], torch.tensor([[False, True]]), current=1)
    assert torch.equal(filled[0], current) and not filled[0].requires_grad


@pytest.mark.parametrize('inter', [None, 4, 6])
def test_fusion_has_the_parameters_of_the_release(inter):
    names = {name: tuple(value.shape) for name, value in
             ResNetFusion(6, 3, inter).state_dict().items() if 'num_batches' not in name}
    width = inter or 6
    shortcut = {name for name in names if 'downsample' in name}
    assert bool(shortcut) == (width != 6)
    if shortcut:
        assert names['layers.0.downsample.0.weight'] == (width, 6, 3, 3)
        assert 'layers.0.downsample.0.bias' not in names
        assert names['layers.0.downsample.1.weight'] == (width,)
    assert names['layers.0.conv1.weight'] == (width, 6, 3, 3)
    assert names['layers.2.conv2.weight'] == (width, width, 3, 3)
    assert names['layers.1.bn2.weight'] == (width,)
    assert names['layer_norm.0.weight'] == (3, width) and names['layer_norm.1.bias'] == (3,)
    assert 'layers.3.conv1.weight' not in names


def test_channels_follow_the_frames_and_rows_the_map():
    fusion = ResNetFusion(6, 3, num_layers=0)
    maps = [torch.randn(2, 20, 3) for _ in range(2)]
    got = fusion(maps, (4, 5))
    torch.testing.assert_close(got, fusion.layer_norm(torch.cat(maps, -1)))
    assert not torch.allclose(got, fusion(maps[::-1], (4, 5)))
    block = ResNetFusion(6, 3, num_layers=1).eval()
    grid = torch.cat([each.view(2, 4, 5, 3).permute(0, 3, 1, 2) for each in maps], 1)
    expected = block.layer_norm(block.layers[0](grid).permute(0, 2, 3, 1).flatten(1, 2))
    torch.testing.assert_close(block(maps, (4, 5)), expected)


def test_checkpointing_changes_neither_gradients_nor_running_statistics():
    plain, saving = ResNetFusion(6, 3, 4), ResNetFusion(6, 3, 4, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    results = []
    for fusion in (plain, saving):
        generator = torch.Generator().manual_seed(2)
        maps = [torch.randn(2, 20, 3, generator=generator) for _ in range(2)]
        fusion(maps, (4, 5)).square().sum().backward()
        results.append([*(parameter.grad for parameter in fusion.parameters()),
                        *fusion.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    norms = [part for part in saving.modules() if isinstance(part, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}
    assert {int(norm.num_batches_tracked) for norm in norms} == {1}
