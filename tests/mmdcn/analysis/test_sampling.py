"""Sampling points against the operator itself."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdcn.analysis.sampling import Sampling, first_center, record_sampling, stride_of
from ops_dcn import DCNv3, DCNv4, DCNv4Conv2d
from tests.systems import randomise


def resample(value: Tensor, sampling: Sampling, n: int, row: int, column: int) -> Tensor:
    """One output pixel (C,): bilinear samples of value (N, H, W, C) at the points, weighted."""
    height, width, channels = value.shape[1:]
    groups = sampling.weights.shape[3]
    maps = value[n].permute(2, 0, 1).unflatten(0, (groups, channels // groups))
    points = sampling.points[n, row, column]
    grid = torch.stack([2 * points[..., 0] / (width - 1) - 1,
                        2 * points[..., 1] / (height - 1) - 1], -1)
    samples = F.grid_sample(maps, grid.unsqueeze(1), align_corners=True)
    return (samples.squeeze(2) * sampling.weights[n, row, column].unsqueeze(1)).sum(-1).flatten()


@pytest.mark.parametrize(('layer', 'value', 'shape'), [
    (DCNv3(12, group=3, offset_scale=1.7), 'input_proj', (2, 7, 9, 12)),
    (DCNv3(12, group=3, remove_center=True, kernel_size=5, pad=2), 'input_proj', (2, 7, 9, 12)),
    (DCNv4(12, group=3, offset_scale=0.5, dw_kernel_size=3), 'value_proj', (2, 7, 9, 12)),
    (DCNv4Conv2d(4, 12, (3, 2), (2, 3), (1, 0), groups=2), 'value_proj', (2, 4, 9, 11)),
    (DCNv4Conv2d(4, 12, (3, 2), padding='same', groups=2), 'value_proj', (2, 4, 7, 9)),
], ids=['dcnv3', 'no-center', 'dcnv4', 'conv', 'conv-same'])
def test_points_reproduce_the_operator(layer: nn.Module, value: str, shape: Any) -> None:
    layer = randomise(layer).double()
    model = nn.Sequential(layer)
    seen = {}
    layer.get_submodule(value).register_forward_hook(
        lambda module, inputs, output: seen.update(value=output))
    layer.output_proj.register_forward_pre_hook(lambda module, inputs: seen.update(out=inputs[0]))
    with record_sampling(model) as samplings:
        model(torch.randn(shape, dtype=torch.float64))
    sampling = samplings['0']
    assert sampling.outside().any() and not sampling.outside().all()
    for pixel in ((0, 0, 0), (1, 2, 1), (0, 3, 2)):
        torch.testing.assert_close(resample(seen['value'], sampling, *pixel), seen['out'][pixel])


def test_grid_is_the_undeformed_kernel() -> None:
    model = nn.Sequential(DCNv4(8, group=1, offset_scale=2.0))
    with record_sampling(model) as samplings:
        model(torch.randn(1, 5, 5, 8))
    sampling = samplings['0']
    assert torch.equal(sampling.points, sampling.grid)
    assert sampling.grid[0, 1, 2, 0, 0].tolist() == [0, -1]
    assert sampling.outside().any(-1)[0, :, :, 0].sum() == 25 - 1 and not sampling.weights.any()


def test_models_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match='Linear has no deformable layer'), \
            record_sampling(nn.Linear(2, 2)):
        pass


@pytest.mark.parametrize(('layer', 'expected'), [
    (nn.Conv2d(3, 4, 3, 2, 1), 0.0), (nn.Conv2d(3, 4, 4, 4), 7.5), (nn.Conv2d(3, 4, 7, 2, 3), 0.0)])
def test_first_center(layer: nn.Module, expected: float) -> None:
    assert first_center(nn.Sequential(nn.Conv2d(3, 3, 3), layer), 16) == expected


@pytest.mark.parametrize(('size', 'stride'), [((56, 56), 4), ((9, 12), 32), ((13, 17), 16)])
def test_stride(size: tuple[int, int], stride: int) -> None:
    assert stride_of(size, (size[0] * stride - stride + 1, size[1] * stride - 3)) == stride
