"""InternImage and FlashInternImage as equations over a state dict of the published names.

Written from the publications (arXiv:2211.05778, arXiv:2401.06197) and the names in the published
checkpoints. Shares no code with the backbone, so that it judges it where no golden data is.
"""
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ops_dcn.plain_layers import State, batch_norm, below, dcnv3, dcnv4, layer_norm, linear

# What the papers and the published checkpoints say of each model, and its parameters in millions
# as the papers count them, those of the classifier included.
FLASH = dict(dcnv4=True, biases=False)
POST = dict(output_norm=False, layer_scale=True)
PUBLISHED = {
    ('InternImage', 'tiny'): (dict(channels=64, depths=(4, 4, 18, 4), groups=(4, 8, 16, 32),
                                 dw_kernel_size=3, layer_scale=True), 29.9),
    ('InternImage', 'small'): (dict(POST, channels=80, depths=(4, 4, 21, 4),
                                  groups=(5, 10, 20, 40), dw_kernel_size=3), 50.1),
    ('InternImage', 'base'): (dict(POST, channels=112, depths=(4, 4, 21, 4),
                                 groups=(7, 14, 28, 56), dw_kernel_size=3), 97.5),
    ('InternImage', 'large'): (dict(POST, channels=160, depths=(5, 5, 22, 5),
                                  groups=(10, 20, 40, 80), dw_kernel_size=3), 223),
    ('InternImage', 'xlarge'): (dict(POST, channels=192, depths=(5, 5, 24, 5),
                                   groups=(12, 24, 48, 96), dw_kernel_size=3), 335),
    ('InternImage', 'huge'): (dict(
        channels=320, depths=(6, 6, 32, 6), groups=(10, 20, 40, 80), dw_kernel_size=5,
        res_norm=True, gate=True, level2_norms=5), None),
    ('InternImage', 'giant'): (dict(
        channels=512, depths=(2, 2, 48, 4), groups=(16, 32, 64, 128), dw_kernel_size=5, gate=True,
        level2_norms=8), None),
    ('FlashInternImage', 'tiny'): (dict(FLASH, channels=64, depths=(4, 4, 18, 4),
                                      groups=(4, 8, 16, 32), layer_scale=True), 30),
    ('FlashInternImage', 'small'): (dict(POST, **FLASH, channels=80, depths=(4, 4, 21, 4),
                                       groups=(5, 10, 20, 40), dw_kernel_size=3), 50),
    ('FlashInternImage', 'base'): (dict(POST, **FLASH, channels=112, depths=(4, 4, 21, 4),
                                      groups=(7, 14, 28, 56), dw_kernel_size=3), 97),
    ('FlashInternImage', 'large'): (dict(POST, dcnv4=True, channels=160, depths=(5, 5, 22, 5),
                                       groups=(10, 20, 40, 80), dw_kernel_size=3), 223),
}


def forward(state: State, image: Tensor, *, depths: tuple[int, ...], groups: tuple[int, ...],
            post_norm: bool = False, level2_post_norm_block_ids: tuple[int, ...] = (),
            **options: Any) -> list[Tensor]:
    """Feature maps (N, C, H, W) of the four levels. What the state has decides the rest."""
    x = _norm(state, 'patch_embed.norm1', _convolved(state, 'patch_embed.conv1', image))
    x = F.gelu(x).permute(0, 3, 1, 2)
    x = _norm(state, 'patch_embed.norm2', _convolved(state, 'patch_embed.conv2', x))
    features = []
    for level, depth in enumerate(depths):
        part = below(state, f'levels.{level}.')
        for block in range(depth):
            x = _block(below(part, f'blocks.{block}.'), x, post_norm, groups[level], options)
            if level == 2 and block in level2_post_norm_block_ids:
                number = level2_post_norm_block_ids.index(block)
                x = layer_norm(part, f'post_norms.{number}.0', x)
        if 'norm.0.weight' in part:
            x = layer_norm(part, 'norm.0', x)
        features.append(x.permute(0, 3, 1, 2))
        if level < len(depths) - 1:
            x = _norm(part, 'downsample.norm', _convolved(part, 'downsample.conv', features[-1]))
    return features


def _convolved(state: State, name: str, x: Tensor) -> Tensor:
    """A 3x3 convolution of stride 2 from (N, C, H, W) to (N, H, W, C)."""
    return F.conv2d(x, state[f'{name}.weight'], state.get(f'{name}.bias'), 2, 1).permute(0, 2, 3, 1)


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    """Behind a convolution: the name of layer norm ends in 1, that of batch norm in 0."""
    return (layer_norm(state, f'{name}.1', x) if f'{name}.1.weight' in state
            else batch_norm(state, f'{name}.0', x))


def _block(state: State, x: Tensor, post_norm: bool, group: int, options: dict[str, Any]
           ) -> Tensor:
    def operator(x: Tensor) -> Tensor:
        layer = dcnv4 if 'dcn.offset_mask.weight' in state else dcnv3
        return layer(below(state, 'dcn.'), x, group=group, **options)

    def mlp(x: Tensor) -> Tensor:
        return linear(state, 'mlp.fc2', F.gelu(linear(state, 'mlp.fc1', x)))
    for number, layer in ((1, operator), (2, mlp)):
        norm = f'norm{number}.0'
        branch = (layer_norm(state, norm, layer(x)) if post_norm
                  else layer(layer_norm(state, norm, x)))
        if f'res_post_norm{number}.0.weight' in state:
            branch = layer_norm(state, f'res_post_norm{number}.0', branch)
        x = x + state.get(f'gamma{number}', torch.ones(())) * branch
    return x


def published_shapes(*, channels: int, depths: tuple[int, ...], groups: tuple[int, ...],
                     mlp_ratio: float = 4.0, dcnv4: bool = False, dw_kernel_size: int = 0,
                     layer_scale: bool = False, output_norm: bool = True, res_norm: bool = False,
                     gate: bool = False, level2_norms: int = 0, biases: bool = True
                     ) -> dict[str, list[int]]:
    """Names and shapes of a published backbone with layer norm, from what the paper says of it.

    Args:
        channels: Width of the first level; it doubles from level to level.
        depths: Blocks of each level.
        groups: Groups of each level.
        mlp_ratio: Hidden width over width.
        dcnv4: Offsets and mask from one layer, whose rows are a multiple of 8.
        dw_kernel_size: Of the depthwise convolution that feeds it; 0 has none.
        layer_scale: Whether blocks have factors.
        output_norm: Whether levels end with a norm.
        res_norm: Whether blocks have a second norm behind operator and MLP.
        gate: Whether the center feature has a scale.
        level2_norms: Norms between the blocks of level 2.
        biases: Whether DCNv4's output projection and the MLP's second layer have biases.
    """
    shapes: dict[str, list[int]] = {}

    def add(name: str, *weight: int, bias: bool = True) -> None:
        shapes[f'{name}.weight'] = list(weight)
        if bias:
            shapes[f'{name}.bias'] = [weight[0]]
    add('patch_embed.conv1', channels // 2, 3, 3, 3)
    add('patch_embed.norm1.1', channels // 2)
    add('patch_embed.conv2', channels, channels // 2, 3, 3)
    add('patch_embed.norm2.1', channels)
    for level, depth in enumerate(depths):
        c, g = channels * 2**level, groups[level]
        at = f'levels.{level}.'
        for block in (f'{at}blocks.{i}.' for i in range(depth)):
            norms = ['norm1.0', 'norm2.0']
            norms += ['res_post_norm1.0', 'res_post_norm2.0'] if res_norm else []
            for norm in norms:
                add(block + norm, c)
            if dcnv4:
                if dw_kernel_size:
                    add(f'{block}dcn.offset_mask_dw', c, 1, dw_kernel_size, dw_kernel_size)
                add(f'{block}dcn.offset_mask', (27 * g + 7) // 8 * 8, c)
                add(f'{block}dcn.value_proj', c, c)
                add(f'{block}dcn.output_proj', c, c, bias=biases)
            else:
                add(f'{block}dcn.dw_conv.0', c, 1, dw_kernel_size, dw_kernel_size)
                add(f'{block}dcn.dw_conv.1.1', c)
                add(f'{block}dcn.offset', 18 * g, c)
                add(f'{block}dcn.mask', 9 * g, c)
                add(f'{block}dcn.input_proj', c, c)
                add(f'{block}dcn.output_proj', c, c)
            if gate:
                shapes[f'{block}dcn.center_feature_scale_proj_weight'] = [g, c]
                shapes[f'{block}dcn.center_feature_scale_proj_bias'] = [g]
            add(f'{block}mlp.fc1', int(mlp_ratio * c), c)
            add(f'{block}mlp.fc2', c, int(mlp_ratio * c), bias=biases)
            if layer_scale:
                shapes[f'{block}gamma1'] = shapes[f'{block}gamma2'] = [c]
        if output_norm:
            add(f'{at}norm.0', c)
        if level == 2:
            for i in range(level2_norms):
                add(f'{at}post_norms.{i}.0', c)
        if level < 3:
            add(f'{at}downsample.conv', 2 * c, c, 3, 3, bias=False)
            add(f'{at}downsample.norm.1', 2 * c)
    return shapes


def published_classifier(facts: dict[str, Any]) -> dict[str, list[int]]:
    """Names and shapes of a published ImageNet classifier of the sizes up to XL."""
    last = facts['channels'] * 8
    width = int(1.5 * last)
    return {**published_shapes(**facts), 'conv_head.0.weight': [width, last, 1, 1],
            **{f'conv_head.1.0.{name}': [width]
               for name in ('weight', 'bias', 'running_mean', 'running_var')},
            'conv_head.1.0.num_batches_tracked': [],
            'head.weight': [1000, width], 'head.bias': [1000]}
