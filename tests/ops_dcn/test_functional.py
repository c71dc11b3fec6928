"""Every wrong argument is a ValueError that says what is wrong and what would be right."""
from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import torch

import ops_dcn
from tests.ops_dcn import cases
from tests.ops_dcn.cases import make_case


def zeros(*shape: int, dtype: torch.dtype = torch.float64, device: str = 'cpu') -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


# The valid calls: value (2, 6, 5, 6), 2 groups, kernel 3; three levels, 27 rows, 3 points.
CONVOLUTIONS = [
    ('dcnv3', 'value', zeros(6, 5, 6),
     'value.dim() is not valid: got 3 (shape (6, 5, 6)), expected 4'),
    ('dcnv3', 'value', None, 'value is not valid: got NoneType, expected a torch.Tensor'),
    ('dcnv3', 'value', zeros(2, 6, 5, 6, dtype=torch.int64),
     'value.dtype is not valid: got torch.int64, expected float64, float32, float16 or bfloat16'),
    ('dcnv3', 'value', zeros(2, 6, 5, 7),
     'value.shape[3] is not valid: got 7, expected a positive multiple of groups (2)'),
    ('dcnv3', 'value', zeros(2, 6, 5, 0), 'value.shape[3] is not valid: got 0'),
    ('dcnv3', 'value', zeros(2, 0, 5, 6), 'value.shape[1] is not valid: got 0'),
    ('dcnv3', 'offset', zeros(2, 6, 5, 35),
     'offset.shape[3] is not valid: got 35 (shape (2, 6, 5, 35)), expected 36'),
    ('dcnv3', 'offset', zeros(2, 5, 6, 36), 'offset.shape[1] is not valid: got 5'),
    ('dcnv3', 'offset', zeros(1, 6, 5, 36), 'offset.shape[0] is not valid: got 1'),
    ('dcnv3', 'offset', zeros(2, 6, 5, 36, dtype=torch.float32),
     'offset.dtype is not valid: got torch.float32, expected torch.float64 as value; convert with '
     'offset.to(value.dtype)'),
    ('dcnv3', 'offset', zeros(2, 6, 5, 36, device='meta'),
     'offset.device is not valid: got meta, expected cpu as value'),
    ('dcnv3', 'mask', zeros(2, 6, 5, 17), 'mask.shape[3] is not valid: got 17'),
    ('dcnv3', 'mask', zeros(2, 6, 5, 2, 9), 'mask.dim() is not valid: got 5'),
    ('dcnv3', 'groups', 0, 'groups is not valid: got 0, expected an int of at least 1'),
    ('dcnv3', 'groups', 1.0, 'groups is not valid: got 1.0'),
    ('dcnv3', 'groups', True, 'groups is not valid: got True'),
    ('dcnv3', 'groups', 4, 'expected a positive multiple of groups (4)'),
    ('dcnv3', 'kernel_size', 0, 'kernel_size is not valid: got 0'),
    ('dcnv3', 'kernel_size', (3, 3, 3),
     'kernel_size is not valid: got (3, 3, 3), expected an int or an (h, w) pair'),
    ('dcnv3', 'kernel_size', 9, 'value.shape[1] is not valid: got 6, expected at least one pixel'),
    ('dcnv3', 'stride', (1, 0), 'stride is not valid: got 0'),
    ('dcnv3', 'stride', 2, 'offset.shape[1] is not valid: got 6'),
    ('dcnv3', 'padding', -1, 'padding is not valid: got -1, expected an int of at least 0'),
    ('dcnv3', 'dilation', 0, 'dilation is not valid: got 0'),
    ('dcnv3', 'offset_scale', float('nan'), 'offset_scale is not valid: got nan'),
    ('dcnv3', 'offset_scale', '1', "offset_scale is not valid: got '1'"),
    ('dcnv3', 'remove_center', True, 'offset.shape[3] is not valid: got 36'),
    ('dcnv4', 'offset_mask', zeros(2, 6, 5, 55),
     'offset_mask.shape[3] is not valid: got 55, expected 56 or 54 (3 * groups * K'),
    ('dcnv4', 'offset_mask', zeros(2, 6, 5, 64), 'offset_mask.shape[3] is not valid: got 64'),
    ('dcnv4', 'offset_mask', zeros(2, 6, 6, 56), 'offset_mask.shape[2] is not valid: got 6'),
    ('dcnv4', 'offset_mask', zeros(2, 6, 5, 56, dtype=torch.float32), 'offset_mask.dtype'),
]
ATTENTIONS = [
    ('value', zeros(2, 26, 6), 'value.dim() is not valid: got 3'),
    ('value', zeros(2, 26, 2, 3), 'spatial_shapes is not valid: got level 2 of 1x1 from row 26'),
    ('value', zeros(2, 27, 2, 0), 'value.shape is not valid'),
    ('spatial_shapes', torch.ones(3, 2), 'spatial_shapes is not valid: got torch.float32'),
    ('spatial_shapes', [[5, 4], [3, 2], [1, 1]], 'spatial_shapes is not valid: got list'),
    ('spatial_shapes', torch.ones(3, 3, dtype=torch.int64), 'spatial_shapes.shape[1]'),
    ('spatial_shapes', torch.ones(6, dtype=torch.int64), 'spatial_shapes.dim() is not valid'),
    ('spatial_shapes', torch.ones(0, 2, dtype=torch.int64), 'spatial_shapes.shape[0]'),
    ('spatial_shapes', torch.tensor([[5, 4], [3, 2], [2, 1]]), 'got level 2 of 2x1 from row 26'),
    ('spatial_shapes', torch.tensor([[5, 4], [3, 2], [0, 1]]), 'got level 2 of 0x1'),
    ('spatial_shapes', zeros(3, 2, dtype=torch.int64, device='meta'), 'spatial_shapes.device'),
    ('level_start_index', torch.tensor([0, 20, -1]), 'got level 2 of 1x1 from row -1'),
    ('level_start_index', torch.tensor([0, 20]), 'level_start_index.shape[0]'),
    ('level_start_index', torch.tensor([0, 20, 26], dtype=torch.int32), 'level_start_index is not'),
]
ATTENTION_POINTS = [
    ('ms_deform_attn', 'sampling_locations', zeros(2, 7, 2, 3, 3), 'sampling_locations.dim()'),
    ('ms_deform_attn', 'sampling_locations', zeros(2, 7, 2, 3, 3, 3),
     'sampling_locations.shape[5] is not valid: got 3'),
    ('ms_deform_attn', 'sampling_locations', zeros(2, 7, 1, 3, 3, 2),
     'sampling_locations.shape[2]'),
    ('ms_deform_attn', 'sampling_locations', zeros(2, 7, 2, 3, 3, 2, dtype=torch.float16),
     'sampling_locations.dtype'),
    ('ms_deform_attn', 'attention_weights', zeros(2, 7, 2, 3, 4), 'attention_weights.shape[4]'),
    ('ms_deform_attn', 'attention_weights', zeros(2, 6, 2, 3, 3), 'attention_weights.shape[1]'),
    ('flash_deform_attn', 'sampling_loc_attn', zeros(2, 7, 2, 26),
     'sampling_loc_attn.shape[3] is not valid: got 26 (shape (2, 7, 2, 26)), expected 27'),
    ('flash_deform_attn', 'sampling_loc_attn', zeros(2, 7, 3, 27), 'sampling_loc_attn.shape[2]'),
    ('flash_deform_attn', 'num_points', 4, 'sampling_loc_attn.shape[3]'),
    ('flash_deform_attn', 'num_points', 0, 'num_points is not valid: got 0'),
]


def call_with(op: str, name: str, wrong: Any) -> None:
    case = make_case(op)
    if op in cases.CONVOLUTIONS:
        assert case.tensors['value'].shape == (2, 6, 5, 6)
    arguments = {**case.tensors, **case.options}
    getattr(ops_dcn, op)(**arguments)
    getattr(ops_dcn, op)(**{**arguments, name: wrong})


@pytest.mark.parametrize(('op', 'name', 'wrong', 'words'), [
    *CONVOLUTIONS, *ATTENTION_POINTS,
    *((op, *entry) for op in cases.ATTENTIONS for entry in ATTENTIONS)])
def test_words(op: str, name: str, wrong: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        call_with(op, name, wrong)
    assert re.fullmatch(r'(?s).+ is not valid: got .+, expected .+; .+', str(caught.value))


@pytest.mark.parametrize('kernel', [(3, 2), 4, 1])
def test_remove_center_needs_an_odd_kernel(kernel: Any) -> None:
    with pytest.raises(ValueError, match='remove_center is not valid: got True with kernel_size'):
        ops_dcn.dcnv4(zeros(1, 6, 6, 4), zeros(1, 6, 6, 24), groups=1, kernel_size=kernel,
                      remove_center=True)


def test_lists_are_pairs() -> None:
    case = make_case('dcnv4', kernel_size=[3, 3], padding=[1, 1])
    assert torch.equal(case.call(), ops_dcn.dcnv4(*case.inputs, groups=2))


@pytest.mark.parametrize(('scale', 'dtype', 'fine'), [
    (1e39, torch.float32, False), (1e39, torch.bfloat16, False), (7e4, torch.float16, True),
    (1e39, torch.float64, True), (10**400, torch.float64, False), (True, torch.float64, False)])
def test_scale_fits_the_compute_type(scale: Any, dtype: torch.dtype, fine: bool) -> None:
    case = make_case('dcnv4', dtype=dtype, offset_scale=scale)
    if fine:
        assert case.call().isfinite().all()
        return
    with pytest.raises(ValueError, match='offset_scale is not valid: got .+, expected a finite'):
        case.call()


@pytest.mark.parametrize('op', cases.OPERATORS)
def test_layouts_that_are_not_strided_are_refused(op: str) -> None:
    case = make_case(op, dtype=torch.float32)
    for name, tensor in case.tensors.items():
        others = [tensor.to_sparse(), torch.nested.nested_tensor([tensor, tensor])]
        others += [tensor.to_mkldnn()] if tensor.is_floating_point() and tensor.dim() < 6 else []
        for other in others:
            with pytest.raises(ValueError, match=rf'^{name} is not valid: got a .+ a dense tensor'):
                getattr(ops_dcn, op)(**{**case.tensors, name: other}, **case.options)


@pytest.mark.parametrize('size', [2**31, 2**61, 2**62, 2**63, 2**70])
@pytest.mark.parametrize('name', ['kernel_size', 'stride', 'padding', 'dilation', 'groups'])
def test_huge_options_are_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=f'{name} is not valid: got {size}'):
        call_with('dcnv4', name, size)


@pytest.mark.parametrize('size', [2**31, 2**61, 2**62, 2**63 - 1])
@pytest.mark.parametrize('position', range(9))
def test_huge_geometry_is_refused_by_the_raw_operator(position: int, size: int) -> None:
    (value, packed), (geometry, *rest) = make_case('dcnv4').raw()
    geometry = [*geometry[:position], size, *geometry[position + 1:]]
    with pytest.raises(RuntimeError, match='geometry holds a value out of range'):
        torch.ops.ops_dcn.dcnv4_forward(value, packed, geometry, *rest)


@pytest.mark.parametrize('op', cases.OPERATORS)
def test_strides_that_do_not_matter(op: str) -> None:
    """Tensors that PyTorch calls contiguous: axes of length 1, and empty tensors."""
    for case in (make_case(op, n=1, groups=1, depth=1), make_case(op, n=0)):
        odd = case.map(lambda tensor: tensor.as_strided(tensor.shape, [
            99 if length == 1 or tensor.numel() == 0 else stride
            for length, stride in zip(tensor.shape, tensor.stride(), strict=True)]))
        cases.assert_same(cases.outcome(odd), cases.outcome(case), (0, 0))


@pytest.mark.parametrize('op', cases.OPERATORS)
def test_vmap_over_nothing(op: str) -> None:
    case = make_case(op)
    none = [tensor.new_empty(0, *tensor.shape) for tensor in case.floats]
    assert torch.vmap(case.call)(*none).shape == (0, *case.call().shape)
    grads = torch.vmap(torch.func.grad(lambda *floats: case.call(*floats).sum()))(*none)
    assert grads.shape == none[0].shape


@pytest.mark.parametrize('op', cases.OPERATORS)
@pytest.mark.parametrize('axis', [1, 2, 3])
@pytest.mark.parametrize('size', [2**40, 2**61, 2**62 - 1])
def test_sizes_that_only_empty_tensors_have(op: str, axis: int, size: int) -> None:
    case = make_case(op, n=0)
    shape = list(case.tensors['value'].shape)
    shape[axis] = size
    try:
        value = case.tensors['value'].new_empty(shape)
    except RuntimeError:
        value = case.tensors['value'].new_empty([0, *(1 for _ in shape[1:])]).as_strided(
            shape, [1] * 4)
    with pytest.raises(ValueError, match=r'^value\.shape'):
        getattr(ops_dcn, op)(**{**case.tensors, 'value': value}, **case.options)


def test_nothing_is_copied_before_the_checks() -> None:
    """Of a terabyte, as a copy would be."""
    value = zeros(1).expand(1, 2**13, 2**13, 2**13)
    with pytest.raises(ValueError, match='expected a positive multiple of groups'):
        ops_dcn.dcnv3(value, zeros(1, 1, 1, 2), zeros(1, 1, 1, 1), groups=3)


def test_an_empty_batch_takes_no_memory() -> None:
    """A kernel of 9000 x 9000 points would be described in 4 GB."""
    code = """
import resource, torch, ops_dcn
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
value, points = torch.zeros(0, 9000, 9000, 1), torch.zeros(0, 1, 1, 243_000_000)
small = ops_dcn.dcnv4(torch.zeros(1, 3, 3, 1), torch.zeros(1, 3, 3, 32), groups=1)
before = peak()
assert ops_dcn.dcnv4(value, points, groups=1, kernel_size=9000, padding=0).shape == (0, 1, 1, 1)
assert peak() - before < 100_000, peak() - before
"""
    subprocess.run([sys.executable, '-c', code], check=True)
