"""The compiled kernels against the reference, where numbers differ: odd shapes, edges, half."""
from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import Tensor

import ops_dcn
from ops_dcn import _library, reference
from ops_dcn.operators import Convolution
from tests.helpers import ROOT
from tests.ops_dcn.cases import (
    ATTENTIONS,
    CONVOLUTIONS,
    DTYPES,
    OPERATORS,
    TOLERANCE,
    Case,
    assert_same,
    attention_case,
    convolution_case,
    make_case,
    outcome,
)

RECTANGULAR = {'kernel_size': (3, 2), 'stride': (2, 1), 'padding': (2, 1), 'dilation': (1, 2)}
GEOMETRIES = {
    'rectangular': {'height': 7, 'width': 9, 'depth': 12, 'offset_scale': 0.7, **RECTANGULAR},
    'one_channel': {'n': 3, 'height': 4, 'width': 9, 'groups': 3, 'depth': 1},
    'three_channels': {'n': 1, 'height': 9, 'width': 3, 'groups': 1, 'depth': 3, 'padding': 0},
    'twelve_channels': {'n': 3, 'height': 3, 'width': 5, 'groups': 5, 'depth': 12, 'dilation': 2,
                        'padding': 2},
    'sixteen_channels': {'n': 1, 'height': 14, 'width': 11, 'groups': 4, 'depth': 16},
    'thirty_three_channels': {'height': 5, 'width': 6, 'groups': 2, 'depth': 33},
    'forty_eight_channels': {'height': 6, 'width': 5, 'groups': 1, 'depth': 48, 'stride': 2},
    'no_center': {'height': 5, 'width': 8, 'depth': 16, 'remove_center': True},
    'no_center_rectangular': {'height': 5, 'width': 8, 'depth': 4, 'kernel_size': (1, 5),
                              'padding': (0, 2), 'remove_center': True},
    'pointwise': {'height': 5, 'width': 6, 'depth': 8, 'kernel_size': 1, 'padding': 0},
    'even': {'height': 6, 'width': 7, 'depth': 8, 'kernel_size': 4, 'offset_scale': 1.5},
    'seven': {'height': 6, 'width': 7, 'depth': 5, 'kernel_size': 7, 'padding': 3},
    'one_pixel': {'height': 1, 'width': 1, 'depth': 16, 'offset_scale': 2.0},
    'far_outside': {'height': 4, 'width': 4, 'depth': 16, 'spread': 50.0},
}
PYRAMIDS = {
    'one_level': {'shapes': ((6, 5),), 'points': 1, 'depth': 16},
    'odd': {'n': 3, 'queries': 5, 'groups': 3, 'depth': 7, 'points': 5},
    'wide': {'n': 1, 'queries': 33, 'groups': 8, 'depth': 32, 'points': 4,
             'shapes': ((12, 9), (6, 5), (3, 3), (2, 1))},
    'one_channel': {'queries': 1, 'groups': 1, 'depth': 1, 'points': 4},
    'forty_eight_channels': {'groups': 2, 'depth': 48, 'points': 8},
}

in_every_dtype = pytest.mark.parametrize('dtype', DTYPES, ids=str)
for_every_operator = pytest.mark.parametrize('op', OPERATORS)


def assert_matches(case: Case, dtype: torch.dtype) -> None:
    assert_same(outcome(case), outcome(case, module=reference), TOLERANCE[dtype])


@in_every_dtype
@pytest.mark.parametrize('op', CONVOLUTIONS)
@pytest.mark.parametrize('name', GEOMETRIES)
def test_convolution_matches_reference(name: str, op: str, dtype: torch.dtype) -> None:
    assert_matches(convolution_case(op, dtype=dtype, **GEOMETRIES[name]), dtype)


@in_every_dtype
@pytest.mark.parametrize('padded', [True, False])
def test_softmax_matches_reference(padded: bool, dtype: torch.dtype) -> None:
    case = convolution_case('dcnv4', dtype=dtype, groups=3, depth=12, softmax=True, padded=padded)
    assert_matches(case, dtype)


@in_every_dtype
@pytest.mark.parametrize('op', ATTENTIONS)
@pytest.mark.parametrize('name', PYRAMIDS)
def test_attention_matches_reference(name: str, op: str, dtype: torch.dtype) -> None:
    assert_matches(attention_case(op, dtype=dtype, **PYRAMIDS[name]), dtype)


@pytest.mark.parametrize('seed', range(12))
@for_every_operator
def test_random_shapes(op: str, seed: int) -> None:
    draw = random.Random(f'{op} {seed}')
    options = {'n': draw.randint(1, 3), 'groups': draw.randint(1, 4), 'depth': draw.randint(1, 20)}
    if op in CONVOLUTIONS:
        kernel = (draw.randint(1, 4), draw.randint(1, 4))
        options |= {'height': draw.randint(4, 12), 'width': draw.randint(4, 12),
                    'kernel_size': kernel, 'padding': (draw.randint(0, 3), draw.randint(0, 3)),
                    'stride': (draw.randint(1, 3), draw.randint(1, 3)),
                    'offset_scale': draw.uniform(0.3, 2)}
    else:
        options |= {'queries': draw.randint(1, 40), 'points': draw.randint(1, 8),
                    'shapes': tuple((draw.randint(1, 9), draw.randint(1, 9))
                                    for _ in range(draw.randint(1, 5)))}
    case = make_case(op, **options)
    assert_matches(case, torch.float64)
    assert_matches(case.to(torch.float32), torch.float32)
    # The forward of an image does not depend on the images beside it, bit for bit.
    for dtype in DTYPES:
        batch = case.to(dtype)
        images = range(options['n'])
        singles = [batch.call(*(tensor[i:i + 1] for tensor in batch.floats)) for i in images]
        assert torch.equal(batch.call(), torch.cat(singles))


@pytest.mark.parametrize('module', [ops_dcn, reference], ids=['compiled', 'reference'])
@pytest.mark.parametrize('options', [
    {'height': 7, 'width': 9, **RECTANGULAR},
    {'height': 7, 'width': 8, 'offset_scale': 0.6, **RECTANGULAR},
    {'height': 5, 'width': 6, 'kernel_size': (2, 4), 'padding': (0, 1), 'offset_scale': 1.7},
])
def test_against_torchvision(options: dict, module: object) -> None:
    """An independent implementation: other tap order, other axis order, no offset_scale."""
    case = convolution_case('dcnv3', groups=2, depth=3, **options)
    value, offset, mask = case.inputs
    kernel, stride, padding, dilation = Convolution(0, 0, 0, 0, 0, options=options).geometry
    kh, kw = kernel
    # Ours, by column then row and (x, y); theirs, by row then column and (y, x).
    offset = offset.unflatten(3, (2, kw, kh, 2)).transpose(4, 5).flip(-1)
    mask = mask.unflatten(3, (2, kw, kh)).transpose(4, 5)
    half = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
    rows = (torch.arange(kh) * dilation[0] - half[0]).double().view(kh, 1).expand(kh, kw)
    columns = (torch.arange(kw) * dilation[1] - half[1]).double().expand(kh, kw)
    grid = torch.stack([rows, columns], -1)
    offset = (grid + offset) * options.get('offset_scale', 1.0) - grid
    expected = torchvision.ops.deform_conv2d(
        value.permute(0, 3, 1, 2), offset.flatten(3).permute(0, 3, 1, 2),
        torch.ones(6, 1, kh, kw, dtype=torch.float64), None, stride, padding, dilation,
        mask.flatten(3).permute(0, 3, 1, 2))
    torch.testing.assert_close(case.call(module=module).permute(0, 3, 1, 2), expected)


@for_every_operator
def test_gradcheck(op: str) -> None:
    options = {'n': 1, 'groups': 2, 'depth': 2}
    options |= ({'height': 3, 'width': 4, 'kernel_size': (3, 2), 'padding': (1, 0),
                 'offset_scale': 0.9, 'spread': 0.7} if op in CONVOLUTIONS
                else {'queries': 3, 'points': 2, 'shapes': ((3, 4), (2, 1))})
    case = make_case(op, **options)
    leaves = [tensor.requires_grad_() for tensor in case.floats]
    assert torch.autograd.gradcheck(case.call, leaves)


@in_every_dtype
@for_every_operator
def test_empty_batch(op: str, dtype: torch.dtype) -> None:
    case = make_case(op, n=0, dtype=dtype)
    assert_matches(case, dtype)
    assert case.call().shape[0] == 0


@pytest.mark.parametrize('op', ATTENTIONS)
def test_no_queries(op: str) -> None:
    case = attention_case(op, queries=0)
    assert_matches(case, torch.float64)
    assert case.call().shape == (2, 0, 6)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('scale', [1.0, 2.0])
@pytest.mark.parametrize('op', CONVOLUTIONS)
def test_grid_lines_take_the_right_hand_derivative(op: str, scale: float,
                                                   dtype: torch.dtype) -> None:
    """Whole offsets: every sample on a grid line, many at exactly -1, H or W."""
    case = convolution_case(op, dtype=dtype, height=4, width=5, offset_scale=scale)
    value, *rest = case.floats
    assert_matches(Case(op, dict(zip(case.tensors, [value, *(t.round() for t in rest)],
                                     strict=True)), case.options), dtype)


@pytest.mark.parametrize('module', [ops_dcn, reference], ids=['compiled', 'reference'])
@pytest.mark.parametrize(('x', 'slope'), [(-1.0, 0.0), (-0.5, 2.0), (0.0, 3.0), (1.0, 4.0),
                                          (2.0, -9.0), (2.5, -9.0), (3.0, 0.0), (4.0, 0.0)])
def test_slopes_by_hand(x: float, slope: float, module: object) -> None:
    """One row of pixels 2, 5, 9, a kernel of one point, position x."""
    value = torch.tensor([2.0, 5.0, 9.0]).double().view(1, 1, 3, 1)
    offset = torch.zeros(1, 1, 3, 2, dtype=torch.float64)
    offset[..., 0] = x - torch.arange(3)
    offset.requires_grad_()
    mask = torch.ones(1, 1, 3, 1, dtype=torch.float64)
    out = module.dcnv3(value, offset, mask, groups=1, kernel_size=1, padding=0)
    grad, = torch.autograd.grad(out.sum(), offset)
    assert grad[..., 0].tolist() == [[[slope] * 3]]


@in_every_dtype
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf'), 6e4, -6e4])
@for_every_operator
def test_positions_that_are_no_number_contribute_nothing(op: str, bad: float,
                                                         dtype: torch.dtype) -> None:
    case = make_case(op, dtype=dtype)
    spoilt = dict(case.tensors)
    name = list(case.tensors)[ops_dcn.OPERATORS[op].differentiable[1]]
    positions = case.tensors[name].clone()
    positions[0].view(positions[0].shape[0], -1)[:, 1] = bad
    spoilt[name] = positions
    case = Case(op, spoilt, case.options)
    got = outcome(case)
    assert all(tensor.isfinite().all() for tensor in got.values())
    assert_same(got, outcome(case, module=reference), TOLERANCE[dtype])


def test_values_outside_are_not_read() -> None:
    """Points outside meet neither the infinite pixels at the border nor an infinite mask."""
    value = torch.full((1, 3, 3, 4), float('inf'))
    offset, mask = torch.full((1, 3, 3, 18), 40.0), torch.full((1, 3, 3, 9), float('inf'))
    leaves = [tensor.requires_grad_() for tensor in (value, offset, mask)]
    for module in (ops_dcn, reference):
        out = module.dcnv3(*leaves, groups=1)
        grads = torch.autograd.grad(out, leaves, torch.ones_like(out))
        assert all(tensor.eq(0).all() for tensor in (out, *grads))


@pytest.mark.parametrize('layout', ['strided', 'transposed', 'expanded'])
@for_every_operator
def test_any_memory_layout(op: str, layout: str) -> None:
    case = make_case(op)

    def change(tensor: Tensor) -> Tensor:
        if layout == 'expanded':
            return tensor[:1].expand(2, *tensor.shape[1:])
        if layout == 'transposed':
            return tensor.transpose(0, -1).contiguous().transpose(0, -1)
        return torch.stack([tensor, tensor + 1], -1)[..., 0]
    changed = case.map(change)
    assert not any(tensor.is_contiguous() for tensor in changed.floats)
    dense = changed.map(torch.Tensor.contiguous)
    grad_output = torch.randn(dense.call().shape[::-1], dtype=torch.float64).permute(
        *range(dense.call().dim() - 1, -1, -1))
    assert not grad_output.is_contiguous()
    got, expected = (outcome(c, g) for c, g in ((changed, grad_output),
                                                (dense, grad_output.contiguous())))
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_padding_of_the_packed_tensor_is_ignored() -> None:
    case = convolution_case('dcnv4', groups=1)
    got = outcome(case)
    assert got['grad_offset_mask'].shape[-1] == 32
    assert got['grad_offset_mask'][..., 27:].eq(0).all()
    case.tensors['offset_mask'][..., 27:] = float('nan')
    assert torch.equal(outcome(case)['output'], got['output'])


@for_every_operator
def test_threads_do_not_change_the_result(op: str) -> None:
    options = ({'height': 23, 'width': 19} if op in CONVOLUTIONS
               else {'queries': 101, 'shapes': ((17, 13), (9, 7))})
    case = make_case(op, n=3, groups=4, depth=16, dtype=torch.float32, **options)
    one = outcome(case)
    torch.set_num_threads(2)
    two, again = outcome(case), outcome(case)
    assert torch.equal(one['output'], two['output'])
    assert_same(one, two, TOLERANCE[torch.float32])
    assert all(torch.equal(two[name], again[name]) for name in two)


@for_every_operator
@pytest.mark.parametrize('threads', [3, 29])
@pytest.mark.parametrize('n', [1, 2])
def test_bands_that_share_images(op: str, threads: int, n: int) -> None:
    """Many bands per image, whose samples scatter over all of it; groups shared out as well."""
    options = ({'height': 47, 'width': 37, 'offset_scale': 9.0} if op in CONVOLUTIONS
               else {'queries': 1501, 'shapes': ((37, 23), (9, 7))})
    case = make_case(op, n=n, groups=4, depth=12, dtype=torch.float64, **options)
    one = outcome(case)
    torch.set_num_threads(threads)
    assert_same(outcome(case), one, (1e-11, 1e-12))


@pytest.mark.parametrize('isa', ['baseline', 'avx2', 'avx512'])
def test_every_instruction_set(isa: str) -> None:
    """The set is chosen when the library is loaded, hence a process for each."""
    code = ("from tests.ops_dcn.test_kernels import check_instruction_set; "
            f"check_instruction_set({isa!r})")
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                            env={**os.environ, 'OPS_DCN_CPU_ISA': isa}, check=False)
    if result.stdout.strip().endswith('unsupported'):
        pytest.skip(f'this processor has no {isa}')
    assert result.returncode == 0, result.stderr


def check_instruction_set(isa: str) -> None:
    """Compare with the reference, in a process of its own; the operators share one kernel."""
    try:
        assert _library.backends()['cpu'] == isa
    except ValueError:
        sys.stdout.write('unsupported')
        return
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for dtype in DTYPES:
        for options in GEOMETRIES.values():
            assert_matches(convolution_case('dcnv4', dtype=dtype, **options), dtype)
        for options in PYRAMIDS.values():
            assert_matches(attention_case('flash_deform_attn', dtype=dtype, **options), dtype)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('size', [{}, {'n': 1, 'height': 1, 'width': 1}], ids=['image', 'pixel'])
def test_slices_of_one_tensor(size: dict, dtype: torch.dtype) -> None:
    """What a merged projection yields: rows of value and offset_mask side by side."""
    case = make_case('dcnv4', depth=8, dtype=dtype, **size)
    parts = torch.cat(case.floats, -1).split([t.shape[-1] for t in case.floats], -1)
    sliced = Case('dcnv4', dict(zip(case.tensors, parts, strict=True)), case.options)
    for name, tensor in outcome(sliced).items():
        assert torch.equal(tensor, outcome(case)[name]), name
        assert tensor.is_contiguous()
