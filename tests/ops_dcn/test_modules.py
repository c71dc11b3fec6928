"""Parameters, initialisation and options of the modules; their numbers are in test_golden."""
from __future__ import annotations

import copy
import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import ops_dcn
from ops_dcn import DCNv3, DCNv3Unshared, DCNv4, DCNv4Conv2d, FlashDeformAttn

LEVELS = (torch.tensor([[4, 6], [2, 3]]), torch.tensor([0, 24]))


def shapes(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}


def pair_of(name: str, rows: int, *columns: int) -> dict[str, tuple[int, ...]]:
    return {f'{name}.weight': (rows, *columns), f'{name}.bias': (rows,)}


PROJECTIONS = {**pair_of('input_proj', 32, 32), **pair_of('output_proj', 32, 32)}
GATE = {'center_feature_scale_proj_weight': (4, 32), 'center_feature_scale_proj_bias': (4,)}


def test_published_names_of_dcnv3() -> None:
    expected = {**pair_of('dw_conv.0', 32, 1, 3, 3), **pair_of('dw_conv.1.1', 32),
                **pair_of('offset', 72, 32), **pair_of('mask', 36, 32), **PROJECTIONS}
    assert shapes(DCNv3(32)) == expected
    assert shapes(DCNv3(32, center_feature_scale=True)) == expected | GATE
    small = shapes(DCNv3(32, remove_center=True, dw_kernel_size=5, norm_layer='BN'))
    assert small['offset.weight'] == (64, 32)
    assert small['mask.bias'] == (32,)
    assert small['dw_conv.0.weight'] == (32, 1, 5, 5)
    assert small['dw_conv.1.0.running_mean'] == (32,)
    assert DCNv3(32).dw_conv[1][1].eps == 1e-6


@pytest.mark.parametrize(('group', 'remove_center', 'width'), [
    (1, False, 32), (2, False, 56), (4, False, 112), (8, False, 216), (4, True, 96)])
def test_published_names_of_dcnv4(group: int, remove_center: bool, width: int) -> None:
    layer = DCNv4(32, group=group, remove_center=remove_center)
    assert shapes(layer) == {**pair_of('offset_mask', width, 32), **pair_of('value_proj', 32, 32),
                             **pair_of('output_proj', 32, 32)}
    assert group * (8 if remove_center else 9) == layer.K


def test_options_of_dcnv4() -> None:
    layer = DCNv4(32, dw_kernel_size=5, center_feature_scale=True, output_bias=False)
    assert shapes(layer) == {**pair_of('offset_mask_dw', 32, 1, 5, 5), 'value_proj.bias': (32,),
                             **pair_of('offset_mask', 112, 32), 'value_proj.weight': (32, 32),
                             'output_proj.weight': (32, 32), **GATE}
    assert shapes(DCNv4(32, without_pointwise=True)) == pair_of('offset_mask', 112, 32)


def test_initial_state() -> None:
    image = torch.randn(2, 5, 6, 32)
    layer = DCNv3(32, center_feature_scale=True)
    assert not any(p.any() for p in (*layer.offset.parameters(), *layer.mask.parameters()))
    assert DCNv4(32)(image).eq(0).all()
    bound = math.sqrt(6 / 64)
    for weight in (layer.input_proj.weight, DCNv4(32).value_proj.weight):
        assert 0.9 * bound < weight.abs().max() <= bound
    assert layer.output_proj.bias.eq(0).all()


def test_radial_bias_of_attention() -> None:
    bias = FlashDeformAttn(32, 3, 4, 2).sampling_offsets.bias.detach().view(4, 3, 2, 2)
    for head, direction in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):
        for point in range(2):
            expected = torch.tensor(direction) * (point + 1.0)
            torch.testing.assert_close(bias[head, :, point], expected.expand(3, 2))


def test_dcnv4_takes_tokens_or_images() -> None:
    layer, image = DCNv4(32, dw_kernel_size=3), torch.randn(2, 5, 6, 32)
    nn.init.normal_(layer.offset_mask.weight)
    expected = layer(image)
    assert expected.shape == image.shape
    assert torch.equal(layer(image.flatten(1, 2), (5, 6)), expected.flatten(1, 2))
    assert torch.equal(layer(image.flatten(1, 2), torch.Size([5, 6])), expected.flatten(1, 2))
    square = torch.randn(1, 16, 32)
    assert torch.equal(layer(square), layer(square, (4, 4)))


@pytest.mark.parametrize(('input', 'shape', 'words'), [
    (torch.zeros(1, 30, 32), None, 'shape is not valid: got None with 30 tokens'),
    (torch.zeros(1, 30, 32), (5, 5), 'shape is not valid: got (5, 5), expected H * W = 30'),
    (torch.zeros(1, 5, 6, 32), (6, 5), 'shape is not valid: got (6, 5), expected (5, 6)'),
    (torch.zeros(1, 30, 16), (5, 6), 'input.shape is not valid: got (1, 30, 16)'),
    (torch.zeros(30, 32), None, 'input.shape is not valid: got (30, 32)'),
])
def test_dcnv4_refuses(input: torch.Tensor, shape: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        DCNv4(32)(input, shape)


@pytest.mark.parametrize(('kind', 'arguments', 'words'), [
    (DCNv3, {'channels': 30}, 'channels is not valid: got 30, expected a positive multiple'),
    (DCNv4, {'channels': 30}, 'channels is not valid'),
    (DCNv4, {'group': 0}, 'channels is not valid'),
    (DCNv3, {'stride': 2}, 'stride, pad is not valid: got 2, 1'),
    (DCNv4, {'pad': 0}, 'stride, pad is not valid: got 1, 0'),
    (DCNv4, {'kernel_size': 2}, 'stride, pad is not valid'),
    (DCNv4, {'dw_kernel_size': 4}, 'dw_kernel_size is not valid: got 4, expected an odd'),
    (DCNv3, {'kernel_size': 1, 'pad': 0, 'remove_center': True}, 'remove_center is not valid'),
    (DCNv3, {'act_layer': 'Tanh'}, "act_layer is not valid: got 'Tanh', expected one of"),
    (DCNv3, {'norm_layer': 'GN'}, "norm_layer is not valid: got 'GN'"),
    (FlashDeformAttn, {'d_model': 30}, 'd_model is not valid'),
])
def test_constructors_refuse(kind: type[nn.Module], arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        kind(**arguments)


@pytest.mark.parametrize('kind', [DCNv3, DCNv4, FlashDeformAttn])
def test_unknown_keywords_are_not_swallowed(kind: type[nn.Module]) -> None:
    with pytest.raises(TypeError, match='offset_scle'):
        kind(offset_scle=2.0)


def test_channels_per_group_may_be_odd() -> None:
    with pytest.warns(UserWarning, match='power of two'):
        layer = DCNv4(15, group=5)
    assert layer(torch.randn(1, 4, 4, 15)).shape == (1, 4, 4, 15)


@pytest.mark.parametrize('norm', ['LN', 'BN'])
@pytest.mark.parametrize('act', ['GELU', 'ReLU', 'SiLU'])
def test_every_parameter_of_dcnv3_learns(norm: str, act: str) -> None:
    layer = DCNv3(32, 5, 3, pad=4, dilation=2, group=2, norm_layer=norm, act_layer=act,
                  center_feature_scale=True, remove_center=True)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    layer(torch.randn(2, 7, 5, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())


def attention_inputs(corners: int = 2) -> tuple[torch.Tensor, ...]:
    return (torch.randn(2, 7, 32), torch.rand(2, 7, 2, corners), torch.randn(2, 30, 32), *LEVELS)


def test_attention_boxes() -> None:
    """Reference boxes: offsets are fractions of half the box, divided by the number of points."""
    layer = FlashDeformAttn(32, 2, 4, 4)
    nn.init.normal_(layer.sampling_offsets.weight, std=0.3)
    query, boxes, rows, *levels = attention_inputs(4)
    sizes = LEVELS[0].flip(-1).float()
    # Boxes of 8 pixels per side make 4 points count like plain reference points.
    boxes[..., 2:] = 8 / sizes
    torch.testing.assert_close(layer(query, boxes, rows, *levels),
                               layer(query, boxes[..., :2], rows, *levels))
    for wrong in (boxes[..., :3], boxes[:, :, :1], boxes[:1]):
        with pytest.raises(ValueError, match='reference_points.shape is not valid: got'):
            layer(query, wrong, rows, *levels)
    with pytest.raises(ValueError, match='input_spatial_shapes.shape is not valid: got'):
        layer(query, boxes, rows, LEVELS[0][:1], LEVELS[1])


def test_attention_padding() -> None:
    layer, inputs = FlashDeformAttn(32, 2, 4, 4), attention_inputs()
    layer.value_proj.bias.data.fill_(1.0)
    everything = torch.ones(2, 30, dtype=torch.bool)
    torch.testing.assert_close(layer(*inputs, everything), torch.zeros(2, 7, 32))
    assert torch.equal(layer(*inputs, ~everything), layer(*inputs))


@pytest.mark.parametrize('way', ['half', 'autocast'])
def test_attention_locations_are_not_rounded(way: str) -> None:
    """On a level 2000 pixels wide a half-precision location would be off by half a pixel."""
    layer = FlashDeformAttn(16, 1, 1, 1).eval()
    with torch.no_grad():
        layer.sampling_offsets.bias.zero_()
        for projection in (layer.value_proj, layer.output_proj):
            projection.weight.copy_(torch.eye(16))
    width, column = 2000, 1503
    rows = torch.zeros(1, width, 16)
    rows[:, column] = 1.0
    levels = (torch.tensor([[1, width]]), torch.tensor([0]))
    points = torch.tensor([(column + 0.5) / width, 0.5]).view(1, 1, 1, 2)
    query = torch.zeros(1, 1, 16)
    if way == 'half':
        out = layer.to(torch.float16)(query.half(), points, rows.half(), *levels)
        assert out.dtype == torch.float16
    else:
        with torch.autocast('cpu', torch.bfloat16):
            out = layer(query, points, rows, *levels)
        assert out.dtype == torch.bfloat16
    assert (out.float() - 1).abs().max() < 1e-2


def test_public_names() -> None:
    assert {name for name in ops_dcn.__all__ if not hasattr(ops_dcn, name)} == set()


def random_dcnv4(**options: object) -> ops_dcn.DCNv4:
    layer = ops_dcn.DCNv4(16, group=2, **options).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


def count_linear(layer: torch.nn.Module, image: torch.Tensor) -> int:
    with torch.profiler.profile() as profile:
        layer(image)
    return sum(event.count for event in profile.key_averages() if event.key == 'aten::linear')


def test_merged_projections_give_the_same_numbers() -> None:
    layer, image = random_dcnv4(center_feature_scale=True), torch.randn(2, 5, 6, 16)
    expected, before = layer(image), {k: v.clone() for k, v in layer.state_dict().items()}
    assert layer.merge_projections()
    with torch.no_grad():
        torch.testing.assert_close(layer(image), expected)
        assert count_linear(layer, image) == 3  # with the gate and the output projection
    for name, tensor in layer.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_merged_projections_follow_the_parameters() -> None:
    layer, other, image = random_dcnv4(), random_dcnv4(), torch.randn(1, 4, 4, 16)
    layer.merge_projections()
    layer.load_state_dict(other.state_dict())
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        torch.testing.assert_close(layer(image), other(image))
        layer.value_proj.weight.data.mul_(2)  # as averaging hooks do, behind autograd's back
        other.value_proj.weight.data.mul_(2)
        torch.testing.assert_close(layer(image), other(image))
        assert count_linear(layer, image) == 2
        assert not torch.equal(twin(image), layer(image))
        layer.double()  # no longer merged, but right
        torch.testing.assert_close(layer(image.double()), other.double()(image.double()))
        assert count_linear(layer, image.double()) == 3


def test_merged_projections_are_off_in_training() -> None:
    layer, image = random_dcnv4(), torch.randn(1, 4, 4, 16)
    expected = torch.autograd.grad(layer(image).sum(), list(layer.parameters()))
    layer.merge_projections()
    assert count_linear(layer, image) == 3
    got = torch.autograd.grad(layer(image).sum(), list(layer.parameters()))
    assert all(map(torch.equal, got, expected))
    with torch.no_grad():
        assert count_linear(layer.train(), image) == 3


@pytest.mark.parametrize('options', [{'dw_kernel_size': 3}, {'without_pointwise': True}], ids=str)
def test_projections_that_cannot_be_merged(options: dict) -> None:
    assert not random_dcnv4(**options).merge_projections()


def test_merged_projections_compile() -> None:
    torch.compiler.reset()
    layer, image = random_dcnv4(), torch.randn(1, 4, 4, 16)
    layer.merge_projections()
    with torch.no_grad():
        compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
        torch.testing.assert_close(compiled(image), layer(image))


def inputs_of(layer: nn.Module, side: int = 5) -> tuple[torch.Tensor, ...]:
    """Float32 inputs of a small layer of 16 channels."""
    if isinstance(layer, FlashDeformAttn):
        return (torch.randn(2, side, 16), torch.rand(2, side, 1, 2), torch.randn(2, side**2, 16),
                torch.tensor([[side, side]]), torch.tensor([0]))
    shape = (2, 16, side, 6) if isinstance(layer, DCNv4Conv2d) else (2, side, 6, 16)
    return (torch.randn(shape),)


LAYERS = {
    'dcnv3': lambda **at: DCNv3(16, center_feature_scale=True, **at),
    'dcnv3_bn': lambda **at: DCNv3(16, norm_layer='BN', **at),
    'dcnv3_unshared': lambda **at: DCNv3Unshared(16, **at),
    'dcnv4': lambda **at: DCNv4(16, dw_kernel_size=3, center_feature_scale=True, **at),
    'attention': lambda **at: FlashDeformAttn(16, 1, 4, 2, **at),
    'conv2d': lambda **at: DCNv4Conv2d(16, 8, 3, padding=1, groups=2, **at),
}
every_layer = pytest.mark.parametrize('make', LAYERS.values(), ids=list(LAYERS))


def trained(make: Callable[..., nn.Module]) -> nn.Module:
    """A layer that moves its samples."""
    layer = make().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


@every_layer
def test_device_and_dtype_of_the_parameters(make: Callable[..., nn.Module]) -> None:
    state = make(device='meta', dtype=torch.bfloat16).state_dict()
    assert shapes(make()) == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert {tensor.device.type for tensor in state.values()} == {'meta'}
    assert {tensor.dtype for name, tensor in state.items()
            if 'num_batches' not in name} == {torch.bfloat16}
    layer = make(dtype=torch.float64).eval()
    inputs = inputs_of(layer)
    wide = [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]
    assert layer(*wide).dtype == torch.float64
    moved = layer.to(device='meta')
    assert moved(*(tensor.to('meta') for tensor in wide)).device.type == 'meta'


@every_layer
def test_copies_compute_the_same(make: Callable[..., nn.Module]) -> None:
    layer = trained(make)
    inputs = inputs_of(layer)
    fresh = make().eval()
    fresh.load_state_dict(layer.state_dict())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh):
        assert torch.equal(twin(*inputs), layer(*inputs))
        assert twin.output_proj.weight.data_ptr() != layer.output_proj.weight.data_ptr()


@every_layer
@pytest.mark.parametrize(('there', 'tolerance'), [
    (torch.float16, 2e-2), (torch.bfloat16, 2e-1), (torch.float64, 1e-5)], ids=str)
def test_another_dtype_and_back(make: Callable[..., nn.Module], there: torch.dtype,
                                tolerance: float) -> None:
    layer = trained(make)
    inputs = inputs_of(layer)
    expected = layer(*inputs)
    changed = [tensor.to(there) if tensor.is_floating_point() else tensor for tensor in inputs]
    got = layer.to(there)(*changed)
    assert got.dtype == there
    assert (got.float() - expected).norm() < tolerance * expected.norm()
    back = layer.float()(*inputs)
    assert back.dtype == torch.float32
    assert (back - expected).norm() < tolerance * expected.norm()


@every_layer
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore::DeprecationWarning')
def test_traced_layers_can_be_saved_and_take_other_sizes(make: Callable[..., nn.Module]) -> None:
    layer, file = trained(make), io.BytesIO()
    torch.jit.save(torch.jit.trace(layer, inputs_of(layer)), file)
    file.seek(0)
    traced = torch.jit.load(file)
    for side in (5, 7):
        inputs = inputs_of(layer, side)
        with torch.no_grad():
            assert torch.equal(traced(*inputs), layer(*inputs))
