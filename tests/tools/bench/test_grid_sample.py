"""The operators made of grid_sample against the reference, on shapes of all kinds."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import ops_dcn
from ops_dcn import reference
from ops_dcn.operators import Convolution, Pyramid
from tools.bench import grid_sample

# Not square, offsets up to far outside, one group, one channel, one pixel.
GRIDS = [Convolution(2, 5, 7, 3, 2), Convolution(1, 8, 3, 1, 5, spread=6.0),
         Convolution(3, 4, 4, 4, 1, spread=0.1), Convolution(1, 1, 9, 2, 3),
         Convolution(1, 1, 1, 1, 1)]
PYRAMIDS = [Pyramid(2, ((4, 6), (2, 3)), 3, 2, 4), Pyramid(1, ((5, 2),), 1, 3, 1),
            Pyramid(2, ((3, 3), (1, 4), (2, 1)), 2, 1, 2, queries=5),
            Pyramid(1, ((6, 5), (6, 5)), 4, 4, 3, queries=1)]
CASES = [(op, size) for op, operator in ops_dcn.OPERATORS.items()
         for size in (GRIDS if operator.kind is Convolution else PYRAMIDS)]


def differentiate(function: Any, call: Any) -> list[torch.Tensor]:
    """The output and the gradients of everything that has one."""
    leaves = {name: tensor.clone().requires_grad_(tensor.is_floating_point())
              for name, tensor in call.tensors.items()}
    output = function(**leaves, **call.options)
    weight = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    (output * weight).sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves.values() if leaf.requires_grad)]


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize(('op', 'size'), CASES, ids=lambda value: getattr(value, 'shapes', None))
def test_forms_are_the_reference(op: str, size: Convolution | Pyramid, seed: int) -> None:
    torch.manual_seed(seed)
    call = ops_dcn.OPERATORS[op].case(size)
    got = differentiate(grid_sample.FORMS[op], call)
    expected = differentiate(getattr(reference, op), call)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_what_dcnv4_packs_behind_the_masks_is_padding() -> None:
    call = ops_dcn.OPERATORS['dcnv4'].case(Convolution(1, 4, 5, 3, 2))
    packed = call.tensors['offset_mask']
    assert packed.shape[-1] == 88 > 3 * 27
    before = grid_sample.dcnv4(**call.tensors, **call.options)
    packed[..., 81:] = 1e6
    assert torch.equal(grid_sample.dcnv4(**call.tensors, **call.options), before)


def test_a_sample_of_a_pixel_is_its_value() -> None:
    value = torch.arange(12.0).view(1, 3, 4, 1)
    mask = torch.zeros(1, 3, 4, 9)
    mask[..., 3] = 1  # points count along y first: x - 0, y - 1 is the fourth
    moved = grid_sample.dcnv3(value, torch.zeros(1, 3, 4, 18), mask, groups=1)
    expected = torch.cat([torch.zeros(1, 1, 4, 1), value[:, :-1]], 1)
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_forms_are_of_operators() -> None:
    assert set(grid_sample.FORMS) <= set(ops_dcn.OPERATORS)
