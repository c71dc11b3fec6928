"""The path from ResNet-50 to ConvNeXt-T, one step at a time.

Source: Z. Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv:2201.03545, section 2 and
tables 10 and 11.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmcls_custom.backbones.arguments import check_out_indices, refuse

ROADMAP_STEPS = (
    'ResNet, its own training recipe', 'modern training recipe', 'stage ratio', 'patchify stem',
    'depthwise convolution', 'width', 'inverted bottleneck', 'depthwise convolution first',
    'kernel 5', 'kernel 7', 'GELU', 'one activation per block', 'one norm per block',
    'LayerNorm', 'separate downsampling')
(_RATIO, _PATCHIFY, _DEPTHWISE, _WIDTH, _INVERTED, _MOVE_UP, _KERNEL_5, _KERNEL_7, _GELU,
 _ONE_ACT, _ONE_NORM, _LAYER_NORM, _SEPARATE) = range(2, len(ROADMAP_STEPS))
_NUM_STAGES = 4

# Depths before and from the stage ratio on; widths before it, from it on, from the width step on.
ROADMAP_ARCHS: dict[str, dict[str, tuple]] = {
    'resnet50': dict(depths=((3, 4, 6, 3), (3, 3, 9, 3)), widths=(64, 64, 96)),
    # Table 11 gives operations, not the width of 84: it follows from 14.52 G at the stage ratio.
    # The project's own small one, for demonstrations on a CPU.
    'pico': dict(depths=((1, 1, 2, 1), (1, 1, 2, 1)), widths=(16, 16, 16)),
    'resnet200': dict(depths=((3, 24, 36, 3), (3, 3, 27, 3)), widths=(64, 84, 128)),
}


class _LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias,
                         self.eps)
        return x.permute(0, 3, 1, 2)


def _norm(step: int, channels: int) -> nn.Module:
    return _LayerNorm2d(channels) if step >= _LAYER_NORM else nn.BatchNorm2d(channels)


def _act(step: int) -> nn.Module:
    return nn.GELU() if step >= _GELU else nn.ReLU(inplace=True)


def _conv(step: int, cin: int, cout: int, kernel: int, stride: int = 1,
          groups: int = 1) -> nn.Conv2d:
    # Until norms are thinned out, each convolution has one behind it that makes a bias useless.
    return nn.Conv2d(cin, cout, kernel, stride, (kernel - 1) // 2 if kernel > stride else 0,
                     groups=groups, bias=step >= _ONE_NORM)


class _Block(nn.Module):
    """Residual block of a step: (N, cin, H, W) -> (N, cout, H / stride, W / stride)."""

    def __init__(self, step: int, cin: int, width: int, stride: int, kernel: int,
                 drop_path: float) -> None:
        super().__init__()
        self.cout = width if step >= _INVERTED else 4 * width
        self.layers = nn.Sequential(*self._layers(step, cin, width, stride, kernel))
        self.drop_path = DropPath(drop_path)
        self.shortcut = nn.Identity()
        if stride > 1 or cin != self.cout:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, self.cout, 1, stride,
                                                    bias=step >= _ONE_NORM),
                                          _norm(step, self.cout))
        self.act = _act(step) if step < _ONE_ACT else nn.Identity()

    @staticmethod
    def _layers(step: int, cin: int, width: int, stride: int, kernel: int) -> list[nn.Module]:
        inner = 4 * width if step >= _INVERTED else width
        cout = width if step >= _INVERTED else 4 * width
        if step >= _MOVE_UP:
            convs = [_conv(step, cin, cin, kernel, stride, groups=cin),
                     _conv(step, cin, inner, 1), _conv(step, inner, cout, 1)]
        else:
            groups = inner if step >= _DEPTHWISE else 1
            convs = [_conv(step, cin, inner, 1),
                     _conv(step, inner, inner, kernel, stride, groups=groups),
                     _conv(step, inner, cout, 1)]
        layers: list[nn.Module] = []
        for i, conv in enumerate(convs):
            layers.append(conv)
            # The norm that stays stands before the first, the activation before the second 1x1.
            if step < _ONE_NORM or i == 0:
                layers.append(_norm(step, conv.out_channels))
            if (i < 2 and step < _ONE_ACT) or i == 1:
                layers.append(_act(step))
        return layers

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.shortcut(x) + self.drop_path(self.layers(x)))


@MODELS.register_module()
class RoadmapResNet(BaseModule):
    """One step of the path ResNet-50 -> ConvNeXt-T, or ResNet-200 -> ConvNeXt-B.

    Image (N, 3, H, W) -> feature maps (N, C_i, H_i, W_i) of strides 4, 8, 16, 32. Each step keeps
    the changes of those before it:

    ====  ==========================================  ====  ======================================
    step  change                                      step  change
    ====  ==========================================  ====  ======================================
    0     ResNet (stride in the 3x3 convolution)      8     kernel 5
    1     (only the training recipe changes)          9     kernel 7
    2     blocks (3, 4, 6, 3) -> (3, 3, 9, 3)         10    ReLU -> GELU
    3     stem: 4x4 convolution of stride 4           11    one activation per block
    4     3x3 convolutions are depthwise              12    one norm per block
    5     width 64 -> 96                              13    BatchNorm -> LayerNorm
    6     wide inside the block, narrow between       14    downsampling layers between the
    7     depthwise convolution comes first                 stages, LayerNorm at each
    ====  ==========================================  ====  ======================================

    Step 14 computes what ConvNeXt without layer scale does. The paper does not say whether the
    patchify stem keeps an activation; here it has a norm only. Sizes that stride and kernel do
    not divide are rounded up in steps 0 to 2, from step 3 on the stem drops the rest of a
    division by 4, and step 14 rounds down at every halving, as ConvNeXt does.

    Args:
        step: 0..14.
        arch: ``'resnet50'``, ``'resnet200'`` or ``'pico'``, which give depths and widths by step,
            or a mapping with ``depths`` (blocks of the four stages) and ``width`` (the
            bottleneck's, from step 6 on the block's width in the first stage), taken as they are.
        kernel_size: Odd side of the depthwise convolution in place of the step's, from step 8
            on; the paper also tries 9 and 11.
        drop_path_rate: Stochastic depth of the last block; rises linearly from 0.
        out_indices: Stages to return, rising numbers within 0..3.
        frozen_stages: -1 trains all; 0 freezes the stem; k also freezes stages 0..k-1 (their
            downsampling included). Frozen parts stay in eval mode.
        with_cp: Recompute the blocks in the backward pass to save memory.
        pool: Return means over the map, (N, C_i), for classifiers. At step 14 the output norm
            comes after it, as in ConvNeXt.
        in_channels: Channels of the image.
        init_cfg: mmengine's; None: as the step's ancestor, He-normal convolutions before step 5,
            from there on truncated normal with 0.02.

    Raises:
        ValueError: a value out of bounds, naming it.
    """

    def __init__(self, step: int = _SEPARATE, arch: str | Mapping[str, Any] = 'resnet50', *,
                 kernel_size: int | None = None, drop_path_rate: float = 0.0,
                 out_indices: Sequence[int] = (0, 1, 2, 3), frozen_stages: int = -1,
                 with_cp: bool = False, pool: bool = False, in_channels: int = 3,
                 init_cfg: Any = None) -> None:
        super().__init__(init_cfg=_default_init(step) if init_cfg is None else init_cfg)
        if step not in range(len(ROADMAP_STEPS)):
            refuse('step', step, f'a number within 0..{len(ROADMAP_STEPS) - 1}')
        if kernel_size is not None and (step < _KERNEL_5 or kernel_size % 2 == 0):
            refuse('kernel_size', kernel_size, f'None before step {_KERNEL_5}, else an odd number')
        if frozen_stages not in range(-1, _NUM_STAGES + 1):
            refuse('frozen_stages', frozen_stages, f'a number within -1..{_NUM_STAGES}')
        self.out_indices = check_out_indices(out_indices, _NUM_STAGES, 'stage')
        self.step, self.pool, self.frozen_stages = step, pool, frozen_stages
        self.with_cp = with_cp
        self.depths, width = _resolve(arch, step)
        kernel = kernel_size or {_KERNEL_5: 5}.get(step, 7 if step >= _KERNEL_7 else 3)
        self.stem = _stem(step, in_channels, width)
        self.downsamples = nn.ModuleList()
        self.stages = nn.ModuleList()
        rates = torch.linspace(0, drop_path_rate, sum(self.depths), device='cpu').tolist()
        cin = width
        for i, depth in enumerate(self.depths):
            stage, stride = nn.Sequential(), 2 if i else 1
            if step >= _SEPARATE:
                self.downsamples.append(_downsample(step, cin, width) if i else nn.Identity())
                cin, stride = width, 1
            for j in range(depth):
                stage.append(_Block(step, cin, width, 1 if j else stride, kernel, rates.pop(0)))
                cin = stage[-1].cout
            self.stages.append(stage)
            width *= 2
        for i in self.out_indices if step >= _SEPARATE else ():
            self.add_module(f'norm{i}', _norm(step, self.stages[i][-1].cout))
        for part in self._frozen_parts():
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image (N, 3, H, W) -> a map (N, C, H', W') per out index, or (N, C) with ``pool``."""
        x = self.stem(x)
        outs = []
        for i, stage in enumerate(self.stages):
            x = self.downsamples[i](x) if self.downsamples else x
            for block in stage:
                recompute = self.with_cp and x.requires_grad
                x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
            if i in self.out_indices:
                out = x.mean((-2, -1), keepdim=True) if self.pool else x
                out = getattr(self, f'norm{i}')(out) if self.step >= _SEPARATE else out
                outs.append(out.flatten(1) if self.pool else out)
        return tuple(outs)

    def _frozen_parts(self) -> list[nn.Module]:
        stages = max(self.frozen_stages, 0)
        parts = [self.stem] if self.frozen_stages >= 0 else []
        return [*parts, *self.stages[:stages], *self.downsamples[:stages]]

    def train(self, mode: bool = True) -> RoadmapResNet:
        """As ``nn.Module.train``, but frozen parts stay in eval mode."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer number of a parameter, for layer-wise learning-rate decay.

        The stem is 0, block b (counted over all stages) 1 + b, a downsampling layer the block
        behind it, the rest ``num_layers - 1``.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What leads to this backbone in that name, e.g. ``'backbone.'``.

        Returns:
            (layer number, number of layers = blocks + 2).
        """
        num_layers = sum(self.depths) + 2
        parts = param_name.removeprefix(prefix).split('.')
        if not param_name.startswith(prefix) or parts[0] not in ('stem', 'stages', 'downsamples'):
            return num_layers - 1, num_layers
        if parts[0] == 'stem':
            return 0, num_layers
        block = int(parts[2]) if parts[0] == 'stages' else 0
        return 1 + sum(self.depths[:int(parts[1])]) + block, num_layers


def _default_init(step: int) -> list[dict[str, Any]]:
    if step < _WIDTH:
        return [dict(type='Kaiming', layer='Conv2d', mode='fan_out', nonlinearity='relu'),
                dict(type='Constant', layer='BatchNorm2d', val=1)]
    return [dict(type='TruncNormal', layer='Conv2d', std=0.02)]


def _resolve(arch: str | Mapping[str, Any], step: int) -> tuple[tuple[int, ...], int]:
    """Blocks by stage, and the first stage's width."""
    if isinstance(arch, str):
        if arch not in ROADMAP_ARCHS:
            refuse('arch', arch, f'one of {tuple(ROADMAP_ARCHS)} or a mapping')
        preset = ROADMAP_ARCHS[arch]
        return preset['depths'][step >= _RATIO], preset['widths'][(step >= _RATIO)
                                                                  + (step >= _WIDTH)]
    if set(arch) != {'depths', 'width'}:
        refuse('arch', dict(arch), "a mapping with 'depths' and 'width'")
    depths = tuple(arch['depths'])
    if len(depths) != _NUM_STAGES or min(depths) < 1:
        refuse('depths', depths, f'{_NUM_STAGES} positive numbers')
    if arch['width'] < 1:
        refuse('width', arch['width'], 'a positive number')
    return depths, arch['width']


def _stem(step: int, in_channels: int, width: int) -> nn.Sequential:
    if step >= _PATCHIFY:
        return nn.Sequential(_conv(step, in_channels, width, 4, 4), _norm(step, width))
    return nn.Sequential(_conv(step, in_channels, width, 7, 2), _norm(step, width), _act(step),
                         nn.MaxPool2d(3, 2, 1))


def _downsample(step: int, cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(_norm(step, cin), _conv(step, cin, cout, 2, 2))
