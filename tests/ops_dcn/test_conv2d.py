"""DCNv4Conv2d as a stand-in for nn.Conv2d; copies, dtypes and tracing are in test_modules."""
from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from mmcv.cnn import ConvModule, fuse_conv_bn
from mmengine.analysis import get_model_complexity_info
from mmengine.registry import MODELS
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ops_dcn import DCNv4Conv2d

ATTRIBUTES = ('in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation',
              'transposed', 'output_padding', 'groups', 'padding_mode')


@pytest.mark.parametrize('options', [
    {}, {'kernel_size': 3, 'stride': 2, 'padding': 1}, {'kernel_size': (3, 2), 'stride': (1, 2)},
    {'kernel_size': 5, 'padding': 2, 'dilation': 2}, {'kernel_size': 1}, {'bias': False},
    {'padding': 'same'}, {'padding': 'valid', 'stride': 2}, {'kernel_size': 4, 'padding': 'same'},
    {'kernel_size': (2, 3), 'padding': 'same', 'dilation': (3, 2)}])
def test_has_the_shape_of_a_convolution(options: dict[str, Any]) -> None:
    options = {'kernel_size': 3, **options}
    image = torch.randn(2, 6, 9, 11)
    expected = nn.Conv2d(6, 8, **options)(image)
    layer = DCNv4Conv2d(6, 8, groups=2, **options)
    out = layer(image)
    assert out.shape == expected.shape
    assert out.is_contiguous()
    assert layer(image.to(memory_format=torch.channels_last)).is_contiguous(
        memory_format=torch.channels_last)
    assert (layer.bias is None) == (options.get('bias') is False)


def test_starts_as_the_average_of_its_points() -> None:
    layer = DCNv4Conv2d(6, 8, 3, stride=2, padding=1, groups=4).double()
    image = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    value = layer.value_proj(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    average = nn.functional.avg_pool2d(value, 3, 2, 1).permute(0, 2, 3, 1)
    expected = layer.output_proj(average).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(image), expected, rtol=1e-6, atol=1e-7)


def test_learns_an_edge() -> None:
    """In the place of a convolution it fits one: all of its parameters take part."""
    layer = DCNv4Conv2d(3, 4, 3, padding=1, groups=2)
    target = nn.Conv2d(3, 4, 3, padding=1)
    image = torch.randn(4, 3, 8, 8)
    optimizer = torch.optim.Adam(layer.parameters(), 2e-2)
    losses = []
    for _ in range(60):
        loss = (layer(image) - target(image).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad.any() for parameter in layer.parameters())


@pytest.mark.parametrize('input', [torch.zeros(1, 5, 9, 9), torch.zeros(5, 9, 9),
                                   torch.zeros(6, 9)])
def test_refuses(input: torch.Tensor) -> None:
    with pytest.raises(ValueError, match='input.shape is not valid'):
        DCNv4Conv2d(6, 8, 3)(input)


@pytest.mark.parametrize(('options', 'words'), [
    ({'groups': 3}, 'out_channels is not valid'),
    ({'padding': 'full'}, "padding is not valid: got 'full', expected one of ('same', 'valid')"),
    ({'padding': 'same', 'stride': 2}, "padding is not valid: got 'same' with stride (2, 2)"),
    ({'padding_mode': 'reflect'}, "padding_mode is not valid: got 'reflect'"),
])
def test_constructor_refuses(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        DCNv4Conv2d(6, 8, 3, **options)


@pytest.mark.parametrize('options', [
    {}, {'stride': 2, 'padding': 1, 'dilation': 3}, {'padding': 'same'}, {'padding': 'valid'},
    {'kernel_size': (3, 2), 'stride': (1, 2), 'padding': (2, 1), 'groups': 2}])
def test_attributes_are_those_of_a_convolution(options: dict[str, Any]) -> None:
    options = {'kernel_size': 3, **options}
    layer, conv = DCNv4Conv2d(6, 8, **options), nn.Conv2d(6, 8, **options)
    for name in ATTRIBUTES:
        assert getattr(layer, name) == getattr(conv, name), name
    assert layer.bias.shape == conv.bias.shape
    assert f'kernel_size={conv.kernel_size}' in repr(layer)


def test_arguments_have_the_places_of_a_convolution() -> None:
    arguments = (6, 8, 3, 2, 1, 1, 2, False, 'zeros', 'cpu', torch.float64)
    layer, conv = DCNv4Conv2d(*arguments), nn.Conv2d(*arguments)
    assert layer.weight.dtype == conv.weight.dtype
    assert layer.bias is conv.bias is None


def test_same_is_the_padding_of_a_convolution() -> None:
    """An even kernel: as a convolution that averages, with one more zero behind than in front."""
    layer = DCNv4Conv2d(6, 8, (2, 3), padding='same', dilation=(3, 1)).double()
    mean = nn.Conv2d(8, 8, (2, 3), padding='same', dilation=(3, 1), groups=8, bias=False).double()
    nn.init.constant_(mean.weight, 1 / 6)
    image = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    value = layer.value_proj(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    expected = layer.output_proj(mean(value).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(image), expected, rtol=1e-6, atol=1e-7)


def test_one_image_without_a_batch() -> None:
    layer, image = randomised(), torch.randn(6, 7, 9)
    assert torch.equal(layer(image), layer(image[None])[0])


def randomised(**options: Any) -> DCNv4Conv2d:
    layer = DCNv4Conv2d(6, 8, 3, padding=1, **options)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


def random_norm() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(8)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    return norm.eval()


@pytest.mark.parametrize('bias', [True, False])
def test_a_norm_can_be_fused_into_it(bias: bool) -> None:
    layer, norm, image = randomised(bias=bias).eval(), random_norm(), torch.randn(2, 6, 7, 9)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    fused = fuse_conv_bn_eval(layer, norm)
    torch.testing.assert_close(fused(image), norm(layer(image)), rtol=1e-4, atol=1e-5)
    assert set(fused.state_dict()) == {*before, 'output_proj.bias'}
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_a_walker_over_convolutions_passes_it_by() -> None:
    """mmcv fuses norms into nn.Conv2d: one behind this layer stays, and numbers stay."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), randomised(), random_norm()).eval()
    image = torch.randn(2, 3, 9, 9)
    expected = model(image)
    fused = fuse_conv_bn(copy.deepcopy(model))
    assert isinstance(fused[1], nn.Identity) and isinstance(fused[3], nn.BatchNorm2d)
    torch.testing.assert_close(fused(image), expected, rtol=1e-4, atol=1e-5)


def test_it_is_counted() -> None:
    info = get_model_complexity_info(nn.Sequential(randomised()).eval(), (6, 7, 9))
    assert info['params'] == sum(p.numel() for p in randomised().parameters())
    # The depthwise convolution and the three projections; what the operator costs, mmdcn counts.
    assert info['flops'] >= 63 * (6 * 9 + 6 * 32 + 6 * 8 + 8 * 8)


def test_conv_module_of_mmcv_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS._module_dict, 'DCNv4Conv2d', DCNv4Conv2d)
    block = ConvModule(6, 8, 3, stride=2, padding=1, norm_cfg=dict(type='BN'),
                       conv_cfg=dict(type='DCNv4Conv2d'))
    assert isinstance(block.conv, DCNv4Conv2d)
    assert (block.kernel_size, block.stride, block.output_padding) == ((3, 3), (2, 2), (0, 0))
    assert block(torch.randn(2, 6, 9, 9)).shape == (2, 8, 5, 5)


def test_parametrizations_go_to_its_layers() -> None:
    """The layer has no parameter of its own: the error says so, and its last layer takes one."""
    layer, image = randomised(), torch.randn(1, 6, 5, 5)
    with pytest.raises(ValueError, match='does not have a parameter'):
        parametrizations.weight_norm(layer)
    expected = layer(image)
    parametrizations.weight_norm(layer.output_proj)
    torch.testing.assert_close(layer(image), expected)
    assert layer.weight.shape == (8, 8)
