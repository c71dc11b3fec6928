"""Where the deformable layers of a network sample, and where their maps lie in the image."""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmdcn.analysis.features import record_features
from mmdcn.errors import UserError
from ops_dcn import DCNv3, DCNv4, DCNv4Conv2d, reference

_LAYERS = (DCNv3, DCNv4, DCNv4Conv2d)


@dataclass(frozen=True)
class Sampling:
    """Where one deformable layer samples, and how much each sample counts.

    Attributes:
        points: (N, Ho, Wo, G, K, 2), (x, y) in pixels of the layer's input; 0 is the center of the
            first pixel.
        weights: (N, Ho, Wo, G, K), the factor of each sample.
        grid: (N, Ho, Wo, G, K, 2), the points without learned offsets.
        size: (H, W) of the layer's input.
    """

    points: Tensor
    weights: Tensor
    grid: Tensor
    size: tuple[int, int]

    def outside(self) -> Tensor:
        """Which samples lie beyond the zeros around the input and contribute nothing."""
        x, y = self.points.unbind(-1)
        height, width = self.size
        return ~((x > -1) & (x < width) & (y > -1) & (y < height))


@contextmanager
def record_sampling(model: nn.Module) -> Iterator[dict[str, Sampling]]:
    """Record the sampling of every deformable layer while the block runs the model.

    Yields:
        A dictionary that is filled when the block ends, by the layers' names, in their order. Of
        a layer that is called several times it holds the first call.

    Raises:
        UserError: The model has no deformable layer, or the block called none.
    """
    layers = {name: module for name, module in model.named_modules()
              if isinstance(module, _LAYERS)}
    if not layers:
        raise UserError('model', f'{type(model).__name__} has no deformable layer',
                        'DCNv3 or DCNv4 layers, as InternImage and FlashInternImage have')
    sources = [f'{name}.{source}' for name, module in layers.items() for source in _sources(module)]
    samplings: dict[str, Sampling] = {}
    with record_features(model, sources) as outputs:
        yield samplings
    for name, module in layers.items():
        found = [outputs[f'{name}.{source}'] for source in _sources(module)]
        samplings[name] = _sampling(module, found)


def _sources(module: nn.Module) -> tuple[str, ...]:
    """Submodules whose outputs decide where and how a layer samples."""
    if isinstance(module, DCNv3):
        return 'offset', 'mask'
    return ('offset_mask', 'value_proj') if isinstance(module, DCNv4Conv2d) else ('offset_mask',)


def _sampling(module: nn.Module, outputs: Sequence[Tensor]) -> Sampling:
    options = dict(module.options)
    groups = options.pop('groups')
    size = tuple(outputs[0].shape[1:3])
    if isinstance(module, DCNv3):
        offset = outputs[0].unflatten(-1, (groups, -1, 2))
        weights = outputs[1].unflatten(-1, (groups, -1)).softmax(-1)
    else:
        kernel = reference.pair(options['kernel_size'])
        count = math.prod(kernel) - int(options.get('remove_center', False))
        offset, weights = reference.unpack_dcnv4(outputs[0], groups, count)
        size = tuple(outputs[-1].shape[1:3])
    extra = getattr(module, 'extra_padding', (0, 0))  # more zeros behind than in front
    padded = (size[0] + extra[0], size[1] + extra[1])
    points = reference.sampling_points(padded, offset, **options)
    grid = reference.sampling_points(padded, torch.zeros_like(offset), **options)
    return Sampling(points, weights, grid, size)


def stride_of(size: tuple[int, int], image_size: tuple[int, int]) -> int:
    """Pixels of the image per pixel of a map of ``size``: the nearest power of two."""
    return 2 ** round(math.log2(max(image_size) / max(size)))


def first_center(backbone: nn.Module, stride: int) -> float:
    """Where the center of the first pixel of a map lies in the image, in image pixels.

    Convolutions that pad both sides alike (3x3, stride 2, padding 1) keep the first center at 0;
    behind patches without padding it is in the middle of the first ``stride`` pixels.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.stride[0] > 1:
            padding = module.padding if isinstance(module.padding, tuple) else (0, 0)
            return 0.0 if module.kernel_size[0] == 2 * padding[0] + 1 else (stride - 1) / 2
    return (stride - 1) / 2
