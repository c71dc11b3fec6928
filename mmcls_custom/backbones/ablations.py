"""InternImage with another operator in the place of DCNv3, to measure what the operator is worth.

No published model is built like this. Imported by name only, through a config's
``custom_imports``. Sources of the questions: W. Wang et al., "InternImage", CVPR 2023,
arXiv:2211.05778, table 6; Y. Xiong et al., "Efficient Deformable ConvNets", CVPR 2024,
arXiv:2401.06197, figure 1 and section 3.

What is fair: stem, downsampling, MLPs, norms, widths and depths are InternImage's, and each
operator works between a projection of its input and one of its output, C to C with bias, as DCNv3
does. What an operator needs beyond these (a kernel, query and key, offsets) is its own, so
parameters differ.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmcls_custom.backbones.arguments import refuse
from mmcls_custom.backbones.internimage import InternImage, InternImageArch
from ops_dcn import DCNv3, DCNv4, dcnv3

_HEAD_CHANNELS = 16


class DCNv3WithoutSoftmax(DCNv3):
    """DCNv3 whose mask is used as the linear layer gives it; it starts at the same value, 1/K.

    Parameters, input and output are those of :class:`ops_dcn.DCNv3`.

    Args:
        channels: C, in and out.
        group: G, a divisor of ``channels``.
        offset_scale: Factor on the regular grid and the offsets.
        dw_kernel_size: Odd side of the depthwise kernel; ``None`` means 3.
    """

    def __init__(self, channels: int, *, group: int, offset_scale: float = 1.0,
                 dw_kernel_size: int | None = None) -> None:
        super().__init__(channels, group=group, offset_scale=offset_scale,
                         dw_kernel_size=dw_kernel_size)

    def reset_parameters(self) -> None:
        """As DCNv3; the mask's bias is 1/K, what the softmax makes of equal values."""
        super().reset_parameters()
        points = self.mask.out_features // self.group
        nn.init.constant_(self.mask.bias, 1 / points)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H, W, C)."""
        value = self.input_proj(input)
        features = self.dw_conv(input.permute(0, 3, 1, 2))
        out = dcnv3(value, self.offset(features), self.mask(features).to(value.dtype),
                    **self.options)
        return self.output_proj(out)


class DCNv4WithSoftmax(DCNv4):
    """DCNv4 whose mask is normalised over the K points of each group, as in DCNv3.

    Constructor, parameters, input and output are those of :class:`ops_dcn.DCNv4`. The mask starts
    at 1/K, not at 0.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.options['softmax'] = True


class DepthwiseConv(nn.Module):
    """Projection, depthwise convolution, projection: a kernel that no input changes.

    Args:
        channels: C, in and out.
        kernel_size: Odd side of the kernel; 7 is what ConvNeXt has, and what the DCNv4 paper
            compares with.
    """

    def __init__(self, channels: int, kernel_size: int = 7) -> None:
        super().__init__()
        self.input_proj = _projection(channels)
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2,
                              groups=channels)
        self.output_proj = _projection(channels)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H, W, C)."""
        out = self.conv(self.input_proj(input).permute(0, 3, 1, 2))
        return self.output_proj(out.permute(0, 2, 3, 1))


class Attention(nn.Module):
    """Multi-head self-attention of all pixels of the map with all others.

    There is no position embedding: where a pixel lies, it knows from the padding of stem and
    downsampling, whose convolutions stand before it.

    Args:
        channels: C, in and out.
        heads: A divisor of ``channels``.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            refuse('heads', heads, f'a divisor of the width {channels}')
        self.heads = heads
        self.query, self.key = _projection(channels), _projection(channels)
        self.input_proj, self.output_proj = _projection(channels), _projection(channels)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H, W, C)."""
        query, key, value = (
            layer(input).flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.input_proj))
        out = F.scaled_dot_product_attention(query, key, value)
        return self.output_proj(out.transpose(1, 2).reshape(input.shape))


def _projection(channels: int) -> nn.Linear:
    """Linear layer C to C that starts as those of DCNv3: Xavier-uniform, zero bias."""
    layer = nn.Linear(channels, channels)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _deformable(kind: type[nn.Module]) -> Callable[[InternImageArch, int, int], nn.Module]:
    return lambda cfg, channels, groups: kind(
        channels, group=groups, offset_scale=cfg.offset_scale, dw_kernel_size=cfg.dw_kernel_size)


# What makes an operator, from the settings of the model and the channels and groups of the level.
_OPERATORS: Mapping[str, Callable[[InternImageArch, int, int], nn.Module]] = {
    'DepthwiseConv': lambda cfg, channels, groups: DepthwiseConv(channels),
    'Attention': lambda cfg, channels, groups: Attention(
        channels, max(1, channels // _HEAD_CHANNELS)),
    'DCNv3WithoutSoftmax': _deformable(DCNv3WithoutSoftmax),
    'DCNv4WithSoftmax': _deformable(DCNv4WithSoftmax),
}


@MODELS.register_module()
class InternImageWithOperator(InternImage):
    """InternImage whose blocks have another operator instead of DCNv3; the rest stays.

    Args:
        arch: As in :class:`InternImage`. ``groups``, ``offset_scale`` and ``dw_kernel_size`` are
            those of the deformable operators.
        operator: ``'DepthwiseConv'`` (7x7), ``'Attention'`` (of all pixels, heads of 16 channels),
            ``'DCNv3WithoutSoftmax'`` or ``'DCNv4WithSoftmax'``.
        **kwargs: As in :class:`InternImage`, but for ``core_op``.

    Raises:
        ValueError: Unknown operator, or a setting that it does not have.
    """

    def __init__(self, arch: str | Mapping[str, Any] | None = None,
                 operator: str = 'DepthwiseConv', **kwargs: Any) -> None:
        if operator not in _OPERATORS:
            refuse('operator', operator, f'one of {tuple(_OPERATORS)}')
        super().__init__(arch, 'DCNv3', **kwargs)
        for name in ('center_feature_scale', 'remove_center'):
            if getattr(self.cfg, name):
                refuse(name, True, f'False with operator={operator!r}')
        for level, width, groups in zip(self.levels, self.cfg.widths, self.cfg.groups, strict=True):
            for block in level.blocks:
                block.dcn = _OPERATORS[operator](self.cfg, width, groups)
        self._freeze()
