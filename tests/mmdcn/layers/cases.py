"""Inputs for deformable attention, and mmcv's class beside ours."""
from __future__ import annotations

from typing import Any

import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttention as MmcvAttention
from torch import Tensor, nn

from mmdcn.layers import MultiScaleDeformableAttention

SHAPES = ((5, 7), (3, 4), (2, 1))
LEAVES = ('query', 'value', 'identity', 'query_pos', 'reference_points')


def pair(dtype: torch.dtype = torch.float64,
         **options: Any) -> tuple[MultiScaleDeformableAttention, nn.Module]:
    """Our layer and mmcv's with the same random weights, without dropout unless asked for."""
    options = {'embed_dims': 24, 'num_heads': 3, 'num_levels': 3, 'num_points': 2, 'dropout': 0.0,
               **options}
    ours, theirs = (cls(**options).to(dtype) for cls in (MultiScaleDeformableAttention,
                                                         MmcvAttention))
    with torch.no_grad():
        for parameter in ours.parameters():  # zeros would hide the terms they multiply
            parameter.normal_(std=0.5)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def inputs(layer: nn.Module, batch: int = 2, queries: int = 6, box: int = 2,
           dtype: torch.dtype = torch.float64, mask: bool = False) -> dict[str, Tensor]:
    """All arguments of the layer's forward; reference points lie inside and outside."""
    levels = torch.tensor(SHAPES[:layer.num_levels])
    sizes = levels.prod(1)

    def tokens(length: int) -> Tensor:
        rows = (batch, length) if layer.batch_first else (length, batch)
        return torch.randn(*rows, layer.embed_dims, dtype=dtype)

    arguments = {'query': tokens(queries), 'value': tokens(int(sizes.sum())),
                 'identity': tokens(queries), 'query_pos': tokens(queries),
                 'reference_points': torch.rand(batch, queries, layer.num_levels, box,
                                                dtype=dtype) * 1.4 - 0.2,
                 'spatial_shapes': levels, 'level_start_index': sizes.cumsum(0) - sizes}
    if mask:
        arguments['key_padding_mask'] = torch.rand(batch, int(sizes.sum())) < 0.3
    return arguments


def outcome(layer: nn.Module, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """Output and the gradients of all parameters and floating inputs, under their names."""
    leaves = {name: arguments[name].clone().requires_grad_() for name in LEAVES
              if name in arguments}
    output = layer(**(arguments | leaves))
    parameters = dict(layer.named_parameters())
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    grads = torch.autograd.grad((output * weight).sum(), [*leaves.values(), *parameters.values()])
    return {'output': output.detach(), **dict(zip([*leaves, *parameters], grads, strict=True))}


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-9,
                atol: float = 1e-10) -> None:
    """The same names and numbers."""
    assert got.keys() == expected.keys()
    for name in got:
        torch.testing.assert_close(got[name], expected[name], rtol=rtol, atol=atol,
                                   msg=lambda text, name=name: f'{name}: {text}')
