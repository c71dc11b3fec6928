"""Counting: formulas against hand counts, module names, state left as it was."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmcls_custom.backbones import InternImage
from mmdcn.analysis.complexity import build_on_meta, count
from ops_dcn import dcnv3, dcnv4, flash_deform_attn, ms_deform_attn


class _Call(nn.Module):
    """A module without parameters around one function of the image."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_convolutions_and_linear_layers_are_counted_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1), nn.ReLU(),
                          nn.BatchNorm2d(8), nn.Conv2d(8, 8, 5, padding=2, groups=8),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    got = count(model, (2, 3, 9, 7))
    stem, depthwise, linear = 2 * 5 * 4 * 8 * 27, 2 * 5 * 4 * 8 * 25, 2 * 8 * 10
    assert got.macs == stem + depthwise + linear
    assert got.by_module == {'': got.macs, '0': stem, '3': depthwise, '6': linear}
    assert got.params == (27 + 1) * 8 + 2 * 8 + (25 + 1) * 8 + (8 + 1) * 10


@pytest.mark.parametrize('device', ['cpu', 'meta'])
@pytest.mark.parametrize('remove_center', [False, True])
@pytest.mark.parametrize('op', ['dcnv3', 'dcnv4'])
def test_a_deformable_core_costs_five_per_point_and_channel(op: str, remove_center: bool,
                                                           device: str) -> None:
    points = 3 * 3 - remove_center
    n, h, w, c, g = 2, 7, 5, 16, 2
    ho, wo = 4, 3

    def call(x: Tensor) -> Tensor:
        value = torch.zeros(n, h, w, c, device=device)
        more = dict(groups=g, stride=2, remove_center=remove_center)
        if op == 'dcnv3':
            return dcnv3(value, value.new_zeros(n, ho, wo, g * points * 2),
                         value.new_zeros(n, ho, wo, g * points), **more)
        return dcnv4(value, value.new_zeros(n, ho, wo, g * points * 3), **more)

    assert count(_Call(call), (1,)).macs == 5 * n * ho * wo * points * c


@pytest.mark.parametrize('device', ['cpu', 'meta'])
@pytest.mark.parametrize('flash', [False, True])
def test_deformable_attention_costs_five_per_point_and_channel(flash: bool, device: str) -> None:
    n, g, d, q, levels, points = 2, 3, 4, 5, 2, 4

    def call(x: Tensor) -> Tensor:
        value = torch.zeros(n, 6 + 2, g, d, device=device)
        shapes = torch.tensor([[2, 3], [1, 2]], device=device)
        starts = torch.tensor([0, 6], device=device)
        if flash:
            return flash_deform_attn(value, shapes, starts,
                                     value.new_zeros(n, q, g, 3 * levels * points),
                                     num_points=points)
        return ms_deform_attn(value, shapes, starts, value.new_zeros(n, q, g, levels, points, 2),
                              value.new_zeros(n, q, g, levels, points))

    assert count(_Call(call), (1,)).macs == 5 * n * q * levels * points * g * d


@pytest.mark.parametrize('device', ['cpu', 'meta'])
@pytest.mark.parametrize('bias', [False, True])
def test_attention_is_counted_on_every_device(bias: bool, device: str) -> None:
    mask = torch.zeros(3, 6, 6, device=device) if bias else None

    def attend(x: Tensor) -> Tensor:
        q = torch.zeros(2, 3, 6, 4, device=device)
        return nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)

    assert count(_Call(attend), (1,)).macs == 2 * 2 * 3 * 6 * 6 * 4


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_the_fused_attention_of_eval_mode_is_counted(device: str) -> None:
    model = nn.MultiheadAttention(8, 2, batch_first=True, device=device)
    got = count(model, (2, 6, 8), forward=lambda x: model(x, x, x, need_weights=False))
    assert got.macs == 2 * 6 * 8 * (4 * 8) + 2 * 2 * 6 * 6 * 8
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_shared_parameter_counts_once_and_modes_are_kept() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    model[1].eval()
    assert count(model, (3, 4)).params == 16 + 4 + 4
    assert [m.training for m in model.modules()] == [True, True, False, True]


def test_a_callable_is_counted_in_place_of_the_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    got = count(model, (1, 3, 2, 2), forward=model[0])
    assert got.by_module == {'': 48, '0': 48}


def test_a_model_built_on_meta_counts_as_the_real_one() -> None:
    def build() -> InternImage:
        return InternImage('pico', core_op='DCNv4', drop_path_rate=0.2)
    light = build_on_meta(build)
    assert {t.device.type for t in light.state_dict().values()} == {'meta'}
    assert count(light, (1, 3, 61, 45)) == count(build(), (1, 3, 61, 45))


def test_stochastic_depth_read_from_a_range_builds_on_meta() -> None:
    def build() -> nn.Module:
        rates = [float(rate) for rate in torch.linspace(0, 0.5, 3)]
        return nn.Sequential(*(nn.Dropout(rate) for rate in rates), nn.Linear(2, 2))
    assert [m.p for m in build_on_meta(build)[:3]] == [0, 0.25, 0.5]


def test_a_bad_shape_is_refused() -> None:
    with pytest.raises(ValueError, match='input_shape is not valid: got .0, 3.'):
        count(nn.Identity(), (0, 3))


def test_an_operator_of_ours_without_a_cost_is_an_error_not_free() -> None:
    library = torch.library.Library('ops_dcn', 'FRAGMENT')
    try:
        library.define('unlisted(Tensor x) -> Tensor')
        library.impl('unlisted', torch.clone, 'CompositeExplicitAutograd')
        with pytest.raises(ValueError, match='multiply-adds of ops_dcn::unlisted are not valid'):
            count(_Call(torch.ops.ops_dcn.unlisted), (1,))
    finally:
        library._destroy()


class _Head(nn.Module):
    """Puts the size of its map into a tensor of the map's device and reads it there."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        size = torch._shape_as_tensor(x)[2:].to(x.device)
        scale = x.new_ones(2) / size
        rows, columns = (int(number) for number in size)
        parts = torch.split(x.flatten(2), [size[0] * size[1]], dim=2)
        pixels = parts[0].reshape(len(x), -1, size[0], size[1]).flatten(2) * scale.sum()
        return torch.einsum('ncp,nqc->nqp', pixels, self.embed(x.new_zeros(len(x), 5, 8))).view(
            len(x), 5, rows, columns)


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_heads_may_read_sizes_from_tensors(device: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), _Head()).to(device)
    got = count(model, (2, 3, 4, 6))
    embed, product = 2 * 5 * 64, 2 * 5 * 8 * 24
    assert got.by_module['1'] == embed + product
    assert got.outside_modules('1') == product
    assert got.outside_modules('1.embed') == embed
    assert got.outside_modules('') == got.outside_modules('absent') == 0


def test_products_of_the_whole_model_are_outside_its_modules() -> None:
    model = nn.Sequential(nn.Linear(4, 6))
    got = count(model, (3, 4), lambda x: model(x) @ torch.ones(6, 2))
    assert (got.macs, got.outside_modules('')) == (3 * 4 * 6 + 3 * 6 * 2, 3 * 6 * 2)


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_integers_still_become_other_types(device: str) -> None:
    def call(x: Tensor) -> Tensor:
        mask = torch.tensor([1, 0, 2]).to(x.device, torch.float64)
        assert mask.dtype == torch.float64
        return x.to(torch.float64) * mask

    assert count(nn.Linear(3, 3).to(device), (2, 3), call).macs == 0
