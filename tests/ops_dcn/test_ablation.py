"""Unshared projections: DCNv3 with equal weights, a loop over points with others."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ops_dcn import DCNv3, DCNv3Unshared

VARIANTS = [{}, {'center_feature_scale': True, 'dw_kernel_size': 5},
            {'remove_center': True, 'offset_scale': 1.7}, {'dilation': 2, 'pad': 2},
            {'kernel_size': 5, 'pad': 2, 'norm_layer': 'BN'}]
all_variants = pytest.mark.parametrize('options', VARIANTS, ids=lambda options: '-'.join(options))


def layer(kind: type[DCNv3], **options: Any) -> DCNv3:
    made = kind(12, group=3, **options).double().eval()
    for name, parameter in made.named_parameters():
        torch.nn.init.normal_(parameter, std=0.5 if 'weight' in name else 1.0)
    return made


def brute_force(module: DCNv3Unshared, image: Tensor) -> Tensor:
    """Every output pixel, group, point and neighbour in plain loops."""
    value, features, offset, mask = module._prepare(image)
    channels, taps = module.channels, module.taps.tolist()
    weight = module.output_proj.weight.unflatten(1, (len(taps), channels))
    height, width = image.shape[1:3]
    depth = channels // module.group
    scale = module.options['offset_scale']
    offset = offset.unflatten(-1, (module.group, len(taps), 2))
    mask = mask.unflatten(-1, (module.group, len(taps)))
    out = torch.zeros_like(image) + module.output_proj.bias
    for n, row, column in torch.cartesian_prod(*map(torch.arange, image.shape[:3])).tolist():
        for k, (tap_x, tap_y) in enumerate(taps):
            sample = torch.zeros(channels, dtype=image.dtype)
            for g in range(module.group):
                dx, dy = offset[n, row, column, g, k].tolist()
                x, y = column + scale * (tap_x + dx), row + scale * (tap_y + dy)
                part = slice(g * depth, (g + 1) * depth)
                for r in range(height):
                    for c in range(width):
                        near = max(0, 1 - abs(x - c)) * max(0, 1 - abs(y - r))
                        sample[part] += near * mask[n, row, column, g, k] * value[n, r, c, part]
            if module.center_feature_scale:
                gate = torch.sigmoid(module.center_feature_scale_proj_weight
                                     @ features[n, row, column]
                                     + module.center_feature_scale_proj_bias)
                gate = gate.repeat_interleave(depth)
                sample = sample * (1 - gate) + value[n, row, column] * gate / len(taps)
            out[n, row, column] += weight[:, k] @ sample
    return out


@all_variants
def test_equal_projections_give_dcnv3(options: dict[str, Any]) -> None:
    shared, unshared = layer(DCNv3, **options), layer(DCNv3Unshared, **options)
    weights = shared.state_dict()
    weights['output_proj.weight'] = weights['output_proj.weight'].repeat(1, len(unshared.taps))
    unshared.load_state_dict(weights)
    image = torch.randn(2, 6, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(unshared(image), shared(image))


@all_variants
def test_loops_over_points(options: dict[str, Any]) -> None:
    module = layer(DCNv3Unshared, **options)
    image = torch.randn(1, 3, 4, 12, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(module(image), brute_force(module, image))


@pytest.mark.parametrize(('options', 'points'), [
    ({}, 9), ({'remove_center': True}, 8), ({'kernel_size': 5, 'pad': 2, 'dw_kernel_size': 3}, 25)])
def test_parameters(options: dict[str, Any], points: int) -> None:
    shared, unshared = layer(DCNv3, **options), layer(DCNv3Unshared, **options)
    sizes = [sum(p.numel() for p in module.parameters()) for module in (shared, unshared)]
    assert sizes[1] - sizes[0] == (points - 1) * 12 ** 2
    assert list(unshared.state_dict()) == list(shared.state_dict())


def test_gradients() -> None:
    module = layer(DCNv3Unshared, center_feature_scale=True)
    image = torch.randn(1, 3, 3, 12, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in module.named_parameters()]

    def run(image: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (image,))

    inputs = (image, *(p.detach().requires_grad_() for p in module.parameters()))
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_initial_state_averages_as_that_of_dcnv3() -> None:
    image = torch.randn(2, 12, 12, 64)
    deviations = [kind(64)(image).std().item() for kind in (DCNv3, DCNv3Unshared)]
    assert deviations[1] == pytest.approx(deviations[0], rel=0.15)
