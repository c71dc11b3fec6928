"""Every wrong argument is a ValueError that says what is wrong and what would be right."""
from __future__ import annotations

import re
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
