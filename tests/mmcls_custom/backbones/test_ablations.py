"""InternImage with other operators: what they compute, and that nothing else differs."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from mmcls_custom.backbones.ablations import (
    Attention,
    DCNv3WithoutSoftmax,
    DCNv4WithSoftmax,
    DepthwiseConv,
    InternImageWithOperator,
)
from mmcls_custom.backbones.internimage import InternImage
from ops_dcn import DCNv3, dcnv3, dcnv4

OPERATORS = ('DepthwiseConv', 'Attention', 'DCNv3WithoutSoftmax', 'DCNv4WithSoftmax')


def noisy(layer: nn.Module) -> nn.Module:
    """The layer with offsets and masks that are neither zero nor equal."""
    with torch.no_grad():
        for param in layer.parameters():
            param.add_(0.3 * torch.randn_like(param))
    return layer


def test_dcnv3_without_softmax_starts_as_dcnv3():
    torch.manual_seed(1)
    published = DCNv3(16, group=4)
    free = DCNv3WithoutSoftmax(16, group=4)
    keys = free.load_state_dict({**published.state_dict(), 'mask.bias': free.mask.bias.detach()})
    assert not keys.missing_keys and not keys.unexpected_keys
    x = torch.randn(2, 5, 7, 16)
    torch.testing.assert_close(free(x), published(x), rtol=1e-5, atol=1e-6)


def test_dcnv3_without_softmax_takes_the_mask_as_it_is():
    layer, x = noisy(DCNv3WithoutSoftmax(16, group=4)), torch.randn(2, 5, 7, 16)
    features = layer.dw_conv(x.permute(0, 3, 1, 2))
    mask = layer.mask(features)
    assert mask.min() < 0
    out = dcnv3(layer.input_proj(x), layer.offset(features), mask, groups=4)
    torch.testing.assert_close(layer(x), layer.output_proj(out))


def test_dcnv4_with_softmax_normalises_each_group():
    layer, x = noisy(DCNv4WithSoftmax(16, group=2)), torch.randn(2, 5, 7, 16)
    packed = layer.offset_mask(x).clone()
    groups = packed[..., :54].unflatten(-1, (2, 27))
    groups[..., 18:] = groups[..., 18:].clone().softmax(-1)
    out = dcnv4(layer.value_proj(x), packed, groups=2)
    torch.testing.assert_close(layer(x), layer.output_proj(out))


def test_a_depthwise_mean_is_what_dcnv3_starts_as():
    dcn, conv = DCNv3(16, group=4), DepthwiseConv(16, kernel_size=3)
    conv.load_state_dict({
        **{key: value for key, value in dcn.state_dict().items() if '_proj.' in key},
        'conv.weight': torch.full((16, 1, 3, 3), 1 / 9), 'conv.bias': torch.zeros(16)})
    x = torch.randn(2, 5, 7, 16)
    torch.testing.assert_close(conv(x), dcn(x), rtol=1e-5, atol=1e-6)


def test_attention_is_that_of_torch():
    layer, theirs = noisy(Attention(16, 4)), nn.MultiheadAttention(16, 4, batch_first=True)
    projections = (layer.query, layer.key, layer.input_proj)
    theirs.load_state_dict({
        'in_proj_weight': torch.cat([part.weight for part in projections]),
        'in_proj_bias': torch.cat([part.bias for part in projections]),
        'out_proj.weight': layer.output_proj.weight, 'out_proj.bias': layer.output_proj.bias})
    x = torch.randn(2, 5, 7, 16)
    tokens = x.flatten(1, 2)
    expected, _ = theirs(tokens, tokens, tokens)
    torch.testing.assert_close(layer(x).flatten(1, 2), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('layer', 'count'), [
    (DepthwiseConv(16), 2 * (16 * 16 + 16) + 16 * (7 * 7 + 1)),
    (Attention(16, 4), 4 * (16 * 16 + 16)),
    (DCNv3WithoutSoftmax(16, group=4), sum(p.numel() for p in DCNv3(16, group=4).parameters())),
], ids=lambda value: type(value).__name__)
def test_parameters(layer: nn.Module, count: int):
    assert sum(param.numel() for param in layer.parameters()) == count


@pytest.mark.parametrize('operator', OPERATORS)
def test_only_the_operator_differs(operator: str):
    def others(model: nn.Module) -> dict[str, torch.Size]:
        return {key: value.shape for key, value in model.state_dict().items()
                if '.dcn.' not in key}

    model = InternImageWithOperator('pico', operator, layer_scale=1.0)
    assert others(model) == others(InternImage('pico', layer_scale=1.0))
    kinds = {type(block.dcn).__name__ for level in model.levels for block in level.blocks}
    assert kinds == {operator}


def test_settings_reach_the_deformable_operators():
    model = InternImageWithOperator('pico', 'DCNv4WithSoftmax', offset_scale=0.5, dw_kernel_size=5)
    for level, groups in zip(model.levels, model.cfg.groups, strict=True):
        assert level.blocks[0].dcn.options['offset_scale'] == 0.5
        assert level.blocks[0].dcn.group == groups
        assert level.blocks[0].dcn.offset_mask_dw.kernel_size == (5, 5)


def test_frozen_levels_stay_frozen():
    model = InternImageWithOperator('pico', 'Attention', frozen_stages=1)
    assert not any(p.requires_grad for p in model.levels[0].parameters())
    assert all(p.requires_grad for p in model.levels[1].parameters())


@pytest.mark.parametrize(('settings', 'message'), [
    (dict(operator='Conv'), "operator is not valid: got 'Conv'"),
    (dict(operator='Attention', center_feature_scale=True), 'center_feature_scale is not valid'),
    (dict(operator='DepthwiseConv', remove_center=True), 'remove_center is not valid'),
])
def test_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        InternImageWithOperator('pico', **settings)


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match='heads is not valid: got 3'):
        Attention(16, 3)
