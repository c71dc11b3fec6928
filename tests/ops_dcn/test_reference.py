"""The reference by hand and by loops; that the kernels equal it is for test_kernels and others."""
from __future__ import annotations

import math

import pytest
import torch

from ops_dcn import reference
from tests.ops_dcn.cases import OPERATORS, make_case

for_every_operator = pytest.mark.parametrize('op', OPERATORS)


def test_taps_and_points() -> None:
    taps = reference.kernel_taps((3, 2), (1, 2))
    assert taps.tolist() == [[-1, -1], [-1, 0], [-1, 1], [1, -1], [1, 0], [1, 1]]
    assert [0, 0] not in reference.kernel_taps(remove_center=True).tolist()
    offset = torch.zeros(1, 2, 3, 1, 6, 2)
    offset[0, 1, 2, 0, 4] = torch.tensor([0.5, -0.25])
    points = reference.sampling_points((5, 7), offset, kernel_size=(3, 2), stride=(2, 3),
                                       padding=(0, 1), dilation=(1, 2), offset_scale=2.0)
    # Row 1, column 2: the center is at x = 2 * 3 - 1 + 1, y = 1 * 2 - 0 + 1.
    assert points[0, 1, 2, 0, 4].tolist() == [6 + 2 * (1 + 0.5), 3 + 2 * (0 - 0.25)]


@for_every_operator
def test_reference_has_a_second_derivative(op: str) -> None:
    case = make_case(op, n=1, groups=1, depth=1)
    leaves = [tensor.requires_grad_() for tensor in case.floats]
    output = case.call(*leaves, module=reference)
    grads = torch.autograd.grad(output.square().sum(), leaves, create_graph=True)
    assert torch.autograd.grad(grads[0].sum(), leaves[0])[0].abs().sum() > 0


@pytest.mark.parametrize(('size', 'kernel', 'stride', 'padding', 'dilation'), [
    (7, 3, 1, 1, 1), (7, 3, 2, 0, 1), (8, 2, 3, 1, 2), (5, 5, 1, 0, 1), (9, 1, 4, 0, 3)])
def test_output_size_is_that_of_a_convolution(size: int, kernel: int, stride: int, padding: int,
                                              dilation: int) -> None:
    row = torch.zeros(1, 1, size)
    expected = torch.nn.functional.conv1d(row, torch.zeros(1, 1, kernel), None, stride, padding,
                                          dilation).shape[-1]
    assert reference.output_size(size, kernel, stride, padding, dilation) == expected


def test_dcnv3_by_loops() -> None:
    """Every output, point and pixel, with the weight of a pixel as a product of two hats."""
    torch.manual_seed(0)
    options = {'kernel_size': (2, 3), 'stride': (2, 1), 'padding': (1, 0), 'dilation': (1, 2),
               'offset_scale': 0.8}
    case = make_case('dcnv3', n=1, height=4, width=7, groups=2, depth=1, **options)
    value, offset, mask = case.inputs
    got = case.call(module=reference)
    expected = torch.zeros_like(got)
    for row, column, group in torch.cartesian_prod(*map(torch.arange, got.shape[1:])).tolist():
        for k in range(6):
            i, j = divmod(k, 2)  # column and row of the kernel
            dx, dy = offset[0, row, column].view(2, 6, 2)[group, k].tolist()
            # The kernel's center is 2 pixels to the right of its first column, 0 below its row 0.
            x = column + 2 + 0.8 * (2 * i - 2 + dx)
            y = 2 * row - 1 + 0.8 * (j + dy)
            for r in range(4):
                for c in range(7):
                    hat = max(0, 1 - math.fabs(x - c)) * max(0, 1 - math.fabs(y - r))
                    weight = mask[0, row, column].view(2, 6)[group, k]
                    expected[0, row, column, group] += hat * weight * value[0, r, c, group]
    torch.testing.assert_close(got, expected)


def test_packed_forms_equal_the_others() -> None:
    dcnv4 = make_case('dcnv4', softmax=True)
    value, packed = dcnv4.inputs
    offset, mask = reference.unpack_dcnv4(packed, 2, 9)
    torch.testing.assert_close(dcnv4.call(module=reference), reference.dcnv3(
        value, offset.flatten(3), mask.softmax(-1).flatten(3), groups=2))
    flash = make_case('flash_deform_attn')
    value, shapes, starts, packed = flash.inputs
    locations = packed[..., :18].unflatten(-1, (3, 3, 2))
    weights = packed[..., 18:].softmax(-1).unflatten(-1, (3, 3))
    torch.testing.assert_close(flash.call(module=reference), reference.ms_deform_attn(
        value, shapes, starts, locations, weights))
