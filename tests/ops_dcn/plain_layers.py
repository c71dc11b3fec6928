"""The layers as equations over a state dict, around the oracle's operators.

Written from the publications and the names in the published checkpoints; shares no code with the
modules, so that it judges them where no golden data is.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ops_dcn import oracle

State = Mapping[str, Tensor]


def below(state: State, prefix: str) -> dict[str, Tensor]:
    """The part of a state dict below a prefix, which the names lose."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()
            if name.startswith(prefix)}


def linear(state: State, name: str, x: Tensor) -> Tensor:
    """A matrix product, with a bias where the state has one."""
    return x @ state[f'{name}.weight'].T + state.get(f'{name}.bias', torch.zeros((), dtype=x.dtype))


def layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    """Over the last axis, epsilon 1e-6."""
    mean = x.mean(-1, keepdim=True)
    deviation = ((x - mean)**2).mean(-1, keepdim=True).add(1e-6).sqrt()
    return (x - mean) / deviation * state[f'{name}.weight'] + state[f'{name}.bias']


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    """Over the last axis, by the running statistics, epsilon 1e-5."""
    deviation = (state[f'{name}.running_var'] + 1e-5).sqrt()
    return ((x - state[f'{name}.running_mean']) / deviation * state[f'{name}.weight']
            + state[f'{name}.bias'])


def depthwise(state: State, name: str, x: Tensor) -> Tensor:
    """A depthwise convolution of an image (N, H, W, C) that keeps its size."""
    weight = state[f'{name}.weight']
    image = F.conv2d(x.permute(0, 3, 1, 2), weight, state[f'{name}.bias'],
                     padding=weight.shape[2] // 2, groups=weight.shape[0])
    return image.permute(0, 2, 3, 1)


def blend(state: State, out: Tensor, value: Tensor, query: Tensor) -> Tensor:
    """The feature scale of the center: a gate for each group."""
    gate = torch.sigmoid(query @ state['center_feature_scale_proj_weight'].T
                         + state['center_feature_scale_proj_bias'])
    gate = gate.repeat_interleave(out.shape[-1] // gate.shape[-1], -1)
    return (1 - gate) * out + gate * value


def dcnv3(state: State, x: Tensor, *, group: int, pad: int = 1, **options: Any) -> Tensor:
    """DCNv3 of an image (N, H, W, C), with GELU."""
    value = linear(state, 'input_proj', x)
    features = depthwise(state, 'dw_conv.0', x)
    norm = (layer_norm, 'dw_conv.1.1') if 'dw_conv.1.1.weight' in state else (
        batch_norm, 'dw_conv.1.0')
    features = F.gelu(norm[0](state, norm[1], features))
    mask = linear(state, 'mask', features)
    mask = torch.softmax(mask.reshape(*mask.shape[:3], group, -1), -1).reshape(mask.shape)
    out = oracle.call('dcnv3', value, linear(state, 'offset', features), mask, groups=group,
                      padding=pad, **options)
    if 'center_feature_scale_proj_weight' in state:
        out = blend(state, out, value, features)
    return linear(state, 'output_proj', out)


def dcnv4(state: State, x: Tensor, *, group: int, pad: int = 1, **options: Any) -> Tensor:
    """DCNv4 of an image (N, H, W, C)."""
    value = linear(state, 'value_proj', x) if 'value_proj.weight' in state else x
    query = depthwise(state, 'offset_mask_dw', x) if 'offset_mask_dw.weight' in state else x
    out = oracle.call('dcnv4', value, linear(state, 'offset_mask', query), groups=group,
                      padding=pad, **options)
    if 'center_feature_scale_proj_weight' in state:
        out = blend(state, out, value, out)
    return linear(state, 'output_proj', out) if 'output_proj.weight' in state else out


def flash_deform_attn(state: State, query: Tensor, points: Tensor, rows: Tensor, sizes: Tensor,
                      starts: Tensor, *, n_heads: int, n_points: int) -> Tensor:
    """Attention from reference points (N, Q, L, 2), or boxes (N, Q, L, 4)."""
    n, queries, levels = points.shape[:3]
    value = linear(state, 'value_proj', rows).reshape(n, rows.shape[1], n_heads, -1)
    offsets = linear(state, 'sampling_offsets', query).reshape(
        n, queries, n_heads, levels, n_points, 2)
    unit = 1 / sizes.flip(-1).to(query.dtype)[:, None] if points.shape[-1] == 2 else (
        points[:, :, None, :, None, 2:] / n_points / 2)
    places = points[:, :, None, :, None, :2] + offsets * unit
    logits = linear(state, 'attention_weights', query).reshape(n, queries, n_heads, -1)
    packed = torch.cat([places.reshape(*logits.shape[:3], -1), logits], -1)
    return linear(state, 'output_proj', oracle.call(
        'flash_deform_attn', value, sizes, starts, packed, num_points=n_points))
