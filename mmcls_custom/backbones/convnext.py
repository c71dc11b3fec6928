"""ConvNeXts that mmpretrain lacks: isotropic, and with DCNv4 for the 7x7 depthwise convolution.

Sources: Z. Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv:2201.03545, section 3.3;
Y. Xiong et al., "Efficient Deformable ConvNets", CVPR 2024, arXiv:2401.06197, table 8.

Weights keep mmpretrain's names. In a classifier (``ImageClassifier`` with ``LinearClsHead``) the
published files differ from them by renaming alone; shapes and values stay:

========================  ==========================================  ==========================
published                 mmpretrain, and IsotropicConvNeXt           where
========================  ==========================================  ==========================
``downsample_layers.*``   ``backbone.downsample_layers.*``            ConvNeXt
``stages.*``              ``backbone.stages.*``                       ConvNeXt
``stem.*``                ``backbone.downsample_layers.0.0.*``        isotropic
``blocks.J.*``            ``backbone.stages.0.J.*``                   isotropic
``norm.*``                ``backbone.norm3.*``                        ConvNeXt classifier
``norm.*``                ``backbone.norm0.*``                        isotropic classifier
``normI.*``               ``backbone.normI.*``                        detectors, segmentors
``head.*``                ``head.fc.*``                               classifier
``*.dwconv.*``            ``*.depthwise_conv.*``                      in each block
``*.pwconv1.*``           ``*.pointwise_conv1.*``                     in each block
``*.pwconv2.*``           ``*.pointwise_conv2.*``                     in each block
``*.norm.*``, ``*.gamma`` (the same)                                  in each block
========================  ==========================================  ==========================
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS
from mmpretrain.models import ConvNeXt
from torch import Tensor, nn

from mmcls_custom.backbones.arguments import resolve_out_indices
from ops_dcn import DCNv4


def _is_pretrained(init_cfg: Any) -> bool:
    cfgs = [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg or []
    return any(cfg['type'] == 'Pretrained' for cfg in cfgs)


@MODELS.register_module()
class IsotropicConvNeXt(ConvNeXt):
    """ConvNeXt of one resolution: a 16x16 convolution without norm, then equal blocks.

    Image (N, 3, H, W) -> (N, C) in classifiers, or a map (N, C, H // 16, W // 16) with
    ``gap_before_final_norm=False``; as in a tuple of one. Any H and W of at least 16 will do.

    Args:
        arch: ``'small'`` (18 blocks of width 384), ``'base'`` (18 of 768), ``'large'`` (36 of
            1024), ``'pico'`` (6 of 64; the project's own, for demonstrations on a CPU), or a
            mapping with ``depths`` and ``channels``, both of length 1.
        layer_scale_init_value: Start of the per-channel factors, 0 for none; None: 1e-6 in
            ``'large'``, else 0, as published.
        out_indices: 0 or -1, the only stage.
        **kwargs: As mmpretrain's ``ConvNeXt``.

    Raises:
        ValueError: unknown arch, more than one stage, or another out index.
    """

    arch_settings = {
        'pico': dict(depths=[6], channels=[64]),
        'small': dict(depths=[18], channels=[384]),
        'base': dict(depths=[18], channels=[768]),
        'large': dict(depths=[36], channels=[1024]),
    }

    def __init__(self, arch: str | Mapping[str, Any] = 'small', *,
                 layer_scale_init_value: float | None = None,
                 out_indices: int | Sequence[int] = -1, **kwargs: Any) -> None:
        if layer_scale_init_value is None:
            layer_scale_init_value = 1e-6 if arch == 'large' else 0.0
        settings = self.arch_settings.get(arch) if isinstance(arch, str) else arch
        if settings is None or {len(settings['depths']), len(settings['channels'])} != {1}:
            raise ValueError(f'arch is not valid: got {arch!r}, expected one of '
                             f'{tuple(self.arch_settings)} or a mapping with depths and channels '
                             'of length 1')
        super().__init__(dict(settings), layer_scale_init_value=layer_scale_init_value,
                         out_indices=resolve_out_indices(out_indices, 1, 'stage'),
                         **{'stem_patch_size': 16, **kwargs})
        # The published stem has no norm, which the base class always adds.
        self.downsample_layers[0] = nn.Sequential(self.downsample_layers[0][0])

    def train(self, mode: bool = True) -> IsotropicConvNeXt:
        """As ``nn.Module.train``, but frozen parts stay in eval mode."""
        super().train(mode)
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer number of a parameter, for layer-wise learning-rate decay.

        As in a vision transformer, which these models stand beside: the stem is 0, block b
        1 + b, the rest ``num_layers - 1``. No rule was published.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What leads to this backbone in that name, e.g. ``'backbone.'``.

        Returns:
            (layer number, number of layers = blocks + 2).
        """
        num_layers = self.depths[0] + 2
        parts = param_name.removeprefix(prefix).split('.')
        if not param_name.startswith(prefix) or parts[0] not in ('downsample_layers', 'stages'):
            return num_layers - 1, num_layers
        return (0 if parts[0] == 'downsample_layers' else 1 + int(parts[2])), num_layers


class _DeformableConv(DCNv4):
    """DCNv4 with 3x3 sampling on maps: (N, C, H, W) -> the same shape."""

    mask_init = 0.0

    def __init__(self, channels: int, mask_init: float, **kwargs: Any) -> None:
        super().__init__(channels, **kwargs)
        self.mask_init = mask_init
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As DCNv4, but sampling weights start at ``mask_init``."""
        super().reset_parameters()
        # Each group holds 18 offsets, then 9 weights; what is left over at the end is padding.
        groups = self.offset_mask.bias.detach()[:27 * self.group].unflatten(0, (self.group, 27))
        groups[:, 18:] = self.mask_init

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@MODELS.register_module()
class DeformableConvNeXt(ConvNeXt):
    """ConvNeXt with DCNv4 (3x3) instead of each 7x7 depthwise convolution.

    Norm, MLP, layer scale and all names stay; ``depthwise_conv`` of a block now is the DCNv4
    layer. Input and output are those of mmpretrain's ``ConvNeXt``, for any image size.

    Unpublished and chosen here: groups of 16 channels, as in InternImage, and no projections
    around the operator. With them ConvNeXt-B would cost 43 % more than without DCNv4, which is not
    compatible with the published gain in speed. Without them ConvNeXt-B has 105.4 M parameters
    and 18.4 G multiply-adds.

    The layer starts at output 0, as published for DCNv4; sampling weights learn first, offsets
    from the second step on. Behind the zero stands a LayerNorm, whose derivative at 0 is 1000;
    layer scale (1e-6) keeps that harmless. Without layer scale the first gradients are some 20
    times those of ConvNeXt, unless ``mask_init`` is 1/9.

    Args:
        arch: As mmpretrain's ``ConvNeXt``.
        group_channels: Channels that share offsets and weights; divides every stage's width.
        without_pointwise: Drop DCNv4's two projections.
        dw_kernel_size: Odd side of a depthwise convolution that feeds the offsets; None has none.
        mask_init: Sampling weights at the start; 1/9 makes the layer a 3x3 mean.
        out_indices: Stages to return; negative ones count from the last.
        **kwargs: As mmpretrain's ``ConvNeXt``.

    Raises:
        ValueError: an out index out of bounds, or widths that ``group_channels`` does not divide.
    """

    def __init__(self, arch: str | Mapping[str, Any] = 'tiny', *, group_channels: int = 16,
                 without_pointwise: bool = True, dw_kernel_size: int | None = None,
                 mask_init: float = 0.0, out_indices: int | Sequence[int] = -1,
                 **kwargs: Any) -> None:
        settings = self.arch_settings['tiny'] if isinstance(arch, str) else arch
        super().__init__(arch, **kwargs, out_indices=resolve_out_indices(
            out_indices, len(settings['depths']), 'stage'))
        for channels, stage in zip(self.channels, self.stages, strict=True):
            if group_channels < 1 or channels % group_channels:
                raise ValueError(f'group_channels is not valid: got {group_channels}, expected a '
                                 f'divisor of the stage widths {tuple(self.channels)}')
            for block in stage:
                block.depthwise_conv = _DeformableConv(
                    channels, mask_init, group=channels // group_channels,
                    dw_kernel_size=dw_kernel_size, without_pointwise=without_pointwise)
        self._freeze_stages()

    def init_weights(self) -> None:
        """As mmengine's; a rule for every linear layer does not reach DCNv4."""
        super().init_weights()
        if not _is_pretrained(self.init_cfg):
            for block in self.modules():
                if isinstance(block, _DeformableConv):
                    block.reset_parameters()

    def train(self, mode: bool = True) -> DeformableConvNeXt:
        """As ``nn.Module.train``, but frozen parts stay in eval mode."""
        super().train(mode)
        return self
