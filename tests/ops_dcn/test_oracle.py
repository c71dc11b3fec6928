"""The oracle of loops, and by it the compiled operators and the reference.

None of it needs data from outside: the small cases are drawn when the tests run. Where the golden
files are present they judge the oracle.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ops_dcn
from ops_dcn import DCNv3, DCNv4, DCNv4Conv2d, FlashDeformAttn, reference
from tests.ops_dcn import oracle, plain_layers, small_cases, test_golden

FINITE = [(op, name) for op, name in small_cases.CASES
          if name in ('plain', 'asymmetric', 'even', 'no_center', 'one_level')]


@pytest.mark.parametrize(('x', 'y', 'output', 'grad'), [
    # One row of pixels 2, 5, 9: output, and the slope in x and in y.
    (0.5, 0.0, 3.5, (3.0, -3.5)),
    (1.0, 0.0, 5.0, (4.0, -5.0)),  # on a grid line the slope is that of the right
    (2.0, 0.0, 9.0, (-9.0, -9.0)),  # and of what is below, where there is nothing
    (-0.5, 0.0, 1.0, (2.0, -1.0)),
    (-1.0, 0.0, 0.0, (0.0, 0.0)),  # at -1 and at the size a point is outside
    (3.0, 0.0, 0.0, (0.0, 0.0)),
    (1.0, -0.5, 2.5, (2.0, 5.0)),
    (1.0, -1.0, 0.0, (0.0, 0.0)),
    (1.0, 1.0, 0.0, (0.0, 0.0)),
    (math.nan, 0.0, 0.0, (0.0, 0.0)),
    (1.0, -math.inf, 0.0, (0.0, 0.0)),
])
def test_one_sample_by_hand(x: float, y: float, output: float, grad: tuple[float, float]) -> None:
    value = np.array([2.0, 5.0, 9.0]).reshape(1, 1, 3, 1)
    # The kernel's point is at (0, 0), (1, 0) and (2, 0); the last two stay far away.
    offset = np.full((1, 1, 3, 2), 1e9)
    offset[0, 0, 0] = x, y
    got = oracle.dcnv3(value, offset, np.ones((1, 1, 3, 1)), np.ones((1, 1, 3, 1)), groups=1,
                       kernel_size=1, padding=0)
    assert got['output'].ravel().tolist() == [output, 0, 0]
    assert got['grad_offset'].reshape(3, 2).tolist() == [list(grad), [0, 0], [0, 0]]
    assert got['grad_mask'].ravel().tolist() == [output, 0, 0]


def test_order_of_the_points_by_hand() -> None:
    """A kernel of two rows and three columns, whose mask picks one point after the other."""
    value = np.arange(6.0).reshape(1, 2, 3, 1)
    seen = []
    for k in range(6):
        got = oracle.dcnv3(value, np.zeros((1, 1, 1, 12)), np.eye(6)[k].reshape(1, 1, 1, 6),
                           np.ones((1, 1, 1, 1)), groups=1, kernel_size=(2, 3), padding=0)
        seen.append(got['output'].item())
    assert seen == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(('op', 'name'), FINITE)
def test_gradients_are_finite_differences(op: str, name: str) -> None:
    """Of the oracle's own forward, in random directions."""
    case, grad_output, expected = small_cases.draw(op, name)
    random = np.random.default_rng(1)
    for tensor_name, tensor in case.tensors.items():
        if not tensor.is_floating_point():
            continue
        for _ in range(2):
            # A few entries at a time, so that a wrong one shows.
            direction = torch.from_numpy(random.standard_normal(tensor.shape)
                                         * (random.random(tensor.shape) < 0.1))
            step = 1e-6
            outputs = [oracle.outcome(
                case.op, {**case.tensors, tensor_name: tensor.nan_to_num() + sign * direction},
                case.options, grad_output)['output'] for sign in (step, -step)]
            slope = float(((outputs[0] - outputs[1]) * grad_output).sum()) / (2 * step)
            wanted = float((expected[f'grad_{tensor_name}'] * direction).sum())
            assert slope == pytest.approx(wanted, rel=1e-6, abs=1e-6), tensor_name


@pytest.mark.parametrize('name', test_golden.CONVOLUTIONS)
def test_golden_convolution(name: str) -> None:
    test_golden.test_convolution(name, oracle.Functions, torch.float64)


@pytest.mark.parametrize('name', test_golden.ATTENTIONS)
def test_golden_attention(name: str) -> None:
    test_golden.test_attention(name, oracle.Functions, torch.float64)
    test_golden.test_packed_attention(name, oracle.Functions, torch.float64)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('module', [ops_dcn, reference], ids=['compiled', 'reference'])
@pytest.mark.parametrize(('op', 'name'), small_cases.CASES)
def test_operator_equals_the_oracle(op: str, name: str, module: ModuleType,
                                    dtype: torch.dtype) -> None:
    small_cases.check(op, name, dtype, module)


def test_small_cases_hold_what_they_are_for() -> None:
    """Samples on grid lines, at -1 and at the size; positions that are far and not finite."""
    offset = small_cases.draw('dcnv3', 'borders')[0].tensors['offset'].unflatten(-1, (-1, 2))
    pixels = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing='xy'), -1)
    places = (offset + pixels[:, :, None]).flatten(0, -2)
    assert {tuple(place) for place in places.tolist()} == {
        (x, y) for x in small_cases.EDGES for y in small_cases.EDGES}
    whole = small_cases.draw('dcnv4', 'grid_lines')[0].tensors['offset_mask'][..., :18]
    assert torch.equal(whole, whole.round())
    for op, tensor, name in (('dcnv3', 'mask', 'far'), ('ms_deform_attn', 'attention_weights',
                                                        'not_finite')):
        case, _, expected = small_cases.draw(op, name)
        assert not case.tensors[tensor].isfinite().all()
        assert all(result.isfinite().all() for result in expected.values())
        assert expected['output'].any()
    kinds = {name for _, name in small_cases.CASES}
    assert len(small_cases.CASES) == 80 and len(kinds) > 20


def randomised(layer: nn.Module) -> nn.Module:
    """In float64, with parameters that move the samples, and statistics that are not the first."""
    for name, tensor in layer.double().eval().state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_(std=0.3).abs_() if 'running_var' in name else tensor.normal_(std=0.3)
    return layer


def compare_layers(layer: nn.Module, plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Output, and the gradients of parameters and floating inputs, of a layer and its equations."""
    results = []
    for by_equations in (True, False):
        leaves = [tensor.clone().requires_grad_() if tensor.is_floating_point() else tensor
                  for tensor in inputs]
        state = {name: tensor.detach().clone() for name, tensor in layer.state_dict().items()}
        named = {name: state[name].requires_grad_() for name, _ in layer.named_parameters()}
        out = (plain(state, *leaves) if by_equations
               else torch.func.functional_call(layer, state, tuple(leaves)))
        wanted = [*named.values(), *(t for t in leaves if t.requires_grad)]
        results.append([out.detach(), *torch.autograd.grad(out.square().sum(), wanted)])
    names = ['output', *named, *(f'input {i}' for i in range(len(inputs)))]
    for name, expected, got in zip(names, *results, strict=False):
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9,
                                   msg=lambda text, name=name: f'{name}: {text}')


@pytest.mark.parametrize('options', [
    {}, {'center_feature_scale': True, 'dw_kernel_size': 5, 'offset_scale': 0.5},
    {'remove_center': True, 'norm_layer': 'BN'},
    {'kernel_size': 5, 'pad': 4, 'dilation': 2, 'dw_kernel_size': 3}], ids='-'.join)
def test_dcnv3_layer(options: dict[str, Any]) -> None:
    layer = randomised(DCNv3(8, group=2, **options))
    rest = {name: value for name, value in options.items() if name in (
        'kernel_size', 'pad', 'dilation', 'offset_scale', 'remove_center')}
    compare_layers(layer, partial(plain_layers.dcnv3, group=2, **rest),
                   torch.randn(2, 4, 5, 8).double())


@pytest.mark.parametrize('options', [
    {}, {'center_feature_scale': True, 'dw_kernel_size': 3, 'output_bias': False},
    {'remove_center': True, 'without_pointwise': True, 'offset_scale': 2.0},
    {'kernel_size': 5, 'pad': 2}], ids='-'.join)
def test_dcnv4_layer(options: dict[str, Any]) -> None:
    layer = randomised(DCNv4(8, group=2, **options))
    rest = {name: value for name, value in options.items() if name in (
        'kernel_size', 'pad', 'offset_scale', 'remove_center')}
    compare_layers(layer, partial(plain_layers.dcnv4, group=2, **rest),
                   torch.randn(2, 4, 5, 8).double())


@pytest.mark.parametrize('corners', [2, 4])
def test_attention_layer(corners: int) -> None:
    layer = randomised(FlashDeformAttn(8, 2, 2, 3))
    sizes, starts = torch.tensor([[4, 3], [2, 2]]), torch.tensor([0, 12])
    compare_layers(layer, partial(plain_layers.flash_deform_attn, n_heads=2, n_points=3),
                   torch.randn(2, 5, 8).double(), torch.rand(2, 5, 2, corners).double(),
                   torch.randn(2, 16, 8).double(), sizes, starts)


def test_conv2d_layer() -> None:
    """Projections around the operator, which a depthwise convolution of its geometry feeds."""
    geometry = {'stride': (2, 1), 'padding': (1, 2), 'dilation': (1, 2)}
    layer = randomised(DCNv4Conv2d(4, 6, (3, 2), groups=2, **geometry))

    def plain(state: dict[str, Tensor], image: Tensor) -> Tensor:
        query = nn.functional.conv2d(image, state['offset_mask_dw.weight'],
                                     state['offset_mask_dw.bias'], groups=4, **geometry)
        value = plain_layers.linear(state, 'value_proj', image.permute(0, 2, 3, 1))
        packed = plain_layers.linear(state, 'offset_mask', query.permute(0, 2, 3, 1))
        out = oracle.call('dcnv4', value, packed, groups=2, kernel_size=(3, 2), **geometry)
        return plain_layers.linear(state, 'output_proj', out).permute(0, 3, 1, 2)
    compare_layers(layer, plain, torch.randn(2, 4, 6, 5).double())


@pytest.mark.parametrize('name', test_golden.MODULES)
def test_golden_layer(name: str) -> None:
    """The equations give the published layers' numbers."""
    data = test_golden.load(name)
    state = {key[7:]: torch.from_numpy(data[key]).double()
             for key in data if key.startswith('state__')}

    def of(*names: str) -> dict[str, Any]:
        return {key: data[f'arg_{key}'].item() for key in names if f'arg_{key}' in data}
    keys = ('query', 'reference_points', 'input_flatten') if 'msda' in name else ('input',)
    inputs = [torch.from_numpy(data[key]).double() for key in keys]
    if 'msda' in name:
        levels = [torch.from_numpy(data[key]) for key in ('spatial_shapes', 'level_start_index')]
        got = plain_layers.flash_deform_attn(state, *inputs, *levels, **of('n_heads', 'n_points'))
    else:
        options = of('group', 'pad', 'kernel_size', 'dilation', 'offset_scale')
        options['remove_center'] = bool(data['arg_remove_center'])
        layer = plain_layers.dcnv3 if 'dcnv3' in name else plain_layers.dcnv4
        shape = inputs[0].shape
        image = inputs[0] if len(shape) == 4 else inputs[0].reshape(
            shape[0], int(data['height']), int(data['width']), shape[2])
        got = layer(state, image, **options).reshape(shape)
    torch.testing.assert_close(got, torch.from_numpy(data['output_f64']), rtol=1e-9, atol=1e-9)
