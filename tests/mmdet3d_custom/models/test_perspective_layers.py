"""Layers of the perspective head: names and shapes as published, starts, shared and own parts."""
from __future__ import annotations

import pytest
import torch

from mmdet3d_custom.models import perspective_layers as layers

ARGUMENTS = (2, 8, (8, 16), 1, dict(type='BN'))


def test_norms_and_scales_belong_to_levels_and_convolutions_to_all() -> None:
    head = layers.FCOS2DHead(*ARGUMENTS)
    assert sorted(name for name, _ in head.named_parameters()) == sorted([
        *(f'{tower}.0.{name}' for tower in ('cls_tower', 'box2d_tower') for name in (
            'weight', *(f'norm.{level}.{part}' for level in (0, 1) for part in (
                'weight', 'bias')))),
        *(f'{name}.{part}' for name in ('cls_logits', 'box2d_reg', 'centerness')
          for part in ('weight', 'bias')), 'scales_box2d_reg.0.scale', 'scales_box2d_reg.1.scale'])


def test_depth_starts_at_the_mean_of_its_level() -> None:
    head = layers.FCOS3DHead(*ARGUMENTS, (40.0, 20.0), (10.0, 5.0)).eval()
    for scale, std in zip(head.scales_depth, (10, 5), strict=True):
        assert scale.scale.tolist() == pytest.approx([0.3 * std])
    torch.nn.init.zeros_(head.box3d_depth[0].weight)
    assert head.box3d_depth[0].bias is None
    maps = head([torch.rand(1, 8, 4, 4), torch.rand(1, 8, 2, 2)])
    assert [float(x.detach().mean()) for x in maps['depth']] == pytest.approx([40, 20])


def test_boxes_and_projections_start_at_their_stride() -> None:
    two, three = layers.FCOS2DHead(*ARGUMENTS), layers.FCOS3DHead(*ARGUMENTS, (1, 1), (1, 1))
    for scales in (two.scales_box2d_reg, three.scales_proj_ctr):
        assert [scale.scale.item() for scale in scales] == [8, 16]
    for scales in (three.scales_size, three.scales_conf):
        assert [scale.scale.item() for scale in scales] == [1, 1]


def test_a_level_is_normalised_with_its_own_statistics() -> None:
    layer = layers.LevelConv(4, 2, dict(type='BN'))
    layer(torch.rand(2, 4, 5, 5) + 3, 1)
    assert not layer.norm[0].running_mean.any() and layer.norm[1].running_mean.all()


@pytest.mark.parametrize('norm_cfg', [dict(type='GN', num_groups=2), dict(type='SyncBN')])
def test_other_norms(norm_cfg: dict) -> None:
    layer = layers.LevelConv(4, 2, norm_cfg).eval()
    assert (layer(torch.rand(1, 4, 3, 3), 0) >= 0).all()


def test_outputs_are_in_float32_under_autocast() -> None:
    head = layers.FCOS3DHead(*ARGUMENTS, (1, 1), (1, 1))
    with torch.autocast('cpu', torch.bfloat16):
        maps = head([torch.rand(1, 8, 4, 4), torch.rand(1, 8, 2, 2)])
    assert {x.dtype for level in maps.values() for x in level} == {torch.float32}
    assert layers.at_least_float32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
