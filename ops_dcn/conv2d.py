"""DCNv4 in the place of ``nn.Conv2d``."""
from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops_dcn._checks import expect_axes, expect_choice, expect_divisor, expect_int, expect_scale
from ops_dcn.functional import dcnv4
from ops_dcn.modules import _padded_width, _xavier, _zero
from ops_dcn.reference import IntPair

__all__ = ['DCNv4Conv2d']


class DCNv4Conv2d(nn.Module):
    """DCNv4 in the place of ``nn.Conv2d``: NCHW in and out, the same arguments and output size.

    A pointwise projection to ``out_channels``, the DCNv4 operator, and a second pointwise
    projection; a depthwise convolution with the kernel, stride, padding and dilation of the layer
    predicts offsets and mask at the resolution of the output. It starts as the average over the
    undeformed kernel points between two random projections: offsets 0, mask 1/K.

    It is no ``nn.Conv2d``, so code that looks for those passes it by, but has the attributes of
    one, tuples where a convolution has them. ``weight`` (out_channels, out_channels) and ``bias``
    are those of the output projection, the last step, so that ``fuse_conv_bn_eval`` holds for it.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Int or (h, w), as the next three.
        stride: Step of the output grid in input pixels.
        padding: Zero padding in pixels, 0 as in ``nn.Conv2d``; or ``'valid'`` for none, ``'same'``
            for as much as keeps the size (stride 1; an odd number has its larger half behind).
        dilation: Spacing of the kernel points in pixels.
        groups: Groups of output channels with offsets and mask of their own. Unlike those of
            ``nn.Conv2d`` they do not restrict the projections.
        bias: Whether the output projection has a bias.
        padding_mode: ``'zeros'``; there is no other.
        device: Of the parameters, as ``dtype``; ``None`` means torch's default.
        dtype: Of the parameters.
        offset_scale: Factor on the regular grid and the offsets.

    Raises:
        ValueError: An argument is not valid.
    """

    transposed = False
    output_padding = (0, 0)

    def __init__(self, in_channels: int, out_channels: int, kernel_size: IntPair = 3,
                 stride: IntPair = 1, padding: IntPair | str = 0, dilation: IntPair = 1,
                 groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None,
                 offset_scale: float = 1.0) -> None:
        super().__init__()
        expect_int('in_channels', in_channels, 1)
        expect_divisor('out_channels', out_channels, 'groups', groups)
        expect_choice('padding_mode', padding_mode, ('zeros',))
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = expect_axes('kernel_size', kernel_size, 1)
        self.stride = expect_axes('stride', stride, 1)
        self.padding = padding if isinstance(padding, str) else expect_axes('padding', padding, 0)
        self.dilation = expect_axes('dilation', dilation, 1)
        offset_scale = expect_scale(offset_scale, torch.float64)
        self.groups = groups
        self.padding_mode = padding_mode
        self.points = math.prod(self.kernel_size)
        before, self.extra_padding = self._pad()
        self.options: dict[str, Any] = {
            'groups': groups, 'kernel_size': self.kernel_size, 'stride': self.stride,
            'padding': before, 'dilation': self.dilation, 'offset_scale': offset_scale}
        at = {'device': device, 'dtype': dtype}
        self.offset_mask_dw = nn.Conv2d(in_channels, in_channels, self.kernel_size, self.stride,
                                        self.padding, self.dilation, groups=in_channels, **at)
        self.offset_mask = nn.Linear(in_channels, _padded_width(groups * self.points), **at)
        self.value_proj = nn.Linear(in_channels, out_channels, **at)
        self.output_proj = nn.Linear(out_channels, out_channels, bias=bias, **at)
        self.reset_parameters()

    def _pad(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Padding of the operator (h, w), and what comes on top of it below and to the right."""
        if not isinstance(self.padding, str):
            return self.padding, (0, 0)
        expect_choice('padding', self.padding, ('same', 'valid'))
        if self.padding == 'valid':
            return (0, 0), (0, 0)
        if self.stride != (1, 1):
            raise ValueError(f"padding is not valid: got 'same' with stride {self.stride}, "
                             'expected numbers unless the stride is 1; pass them in pixels')
        height, width = (dilation * (kernel - 1) for kernel, dilation in zip(
            self.kernel_size, self.dilation, strict=True))
        return (height // 2, width // 2), (height % 2, width % 2)

    @property
    def weight(self) -> Tensor:
        """Of the output projection, (out_channels, out_channels)."""
        return self.output_proj.weight

    @property
    def bias(self) -> Tensor | None:
        """Of the output projection, (out_channels,)."""
        return self.output_proj.bias

    def __setattr__(self, name: str, value: Any) -> None:
        # nn.Module would register a second parameter.
        if name in ('weight', 'bias'):
            setattr(self.output_proj, name, value)
        else:
            super().__setattr__(name, value)

    def reset_parameters(self) -> None:
        """Offsets 0, mask 1/K; Xavier-uniform projections with zero bias."""
        _zero(self.offset_mask)
        _xavier(self.value_proj, self.output_proj)
        used = 3 * self.points * self.groups
        with torch.no_grad():
            per_group = self.offset_mask.bias[:used].view(self.groups, 3 * self.points)
            per_group[:, 2 * self.points:] = 1 / self.points

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, Ho, Wo); either without N as well."""
        if input.dim() not in (3, 4) or input.shape[-3] != self.in_channels:
            raise ValueError(f'input.shape is not valid: got {tuple(input.shape)}, expected (N, '
                             f'{self.in_channels}, H, W) or ({self.in_channels}, H, W); check the '
                             'layout and in_channels')
        if input.dim() == 3:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        offset_mask = self.offset_mask(self.offset_mask_dw(input).permute(0, 2, 3, 1))
        value = self.value_proj(input.permute(0, 2, 3, 1))
        if any(self.extra_padding):  # behind the projection, as what lies outside counts as 0
            height, width = self.extra_padding
            value = F.pad(value, (0, 0, 0, width, 0, height))
        out = self.output_proj(dcnv4(value, offset_mask, **self.options)).permute(0, 3, 1, 2)
        # As a convolution, keep the memory format of the input.
        return out.contiguous() if input.is_contiguous() else out

    def extra_repr(self) -> str:
        """Channels and options, for ``print(module)``."""
        options = {**self.options, 'padding': self.padding}
        return ', '.join([f'{self.in_channels}, {self.out_channels}',
                          *(f'{name}={value}' for name, value in options.items())])
