"""InternImage (DCNv3 or DCNv4) and FlashInternImage.

Sources: W. Wang et al., "InternImage: Exploring Large-Scale Vision Foundation Models with
Deformable Convolutions", CVPR 2023, arXiv:2211.05778; Y. Xiong et al., "Efficient Deformable
ConvNets: Rethinking Dynamic and Sparse Operator for Vision Applications", CVPR 2024,
arXiv:2401.06197.
Parameter names follow the published checkpoints, so those load as they are.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmcls_custom.backbones.arguments import check_out_indices, refuse, resolve_arch
from ops_dcn import DCNv3, DCNv3Unshared, DCNv4

_ACTIVATIONS = {'GELU': nn.GELU, 'ReLU': nn.ReLU, 'SiLU': nn.SiLU}
_NORMS = ('LN', 'BN')
_CORE_OPS = ('DCNv3', 'DCNv3Unshared', 'DCNv4')
_NUM_LEVELS = 4

# Layer scale is the downstream (detection, segmentation) setting. ImageNet training starts tiny and
# large models differently: T has none, S/B/L/XL start at 1e-5, which the config says explicitly.
INTERNIMAGE_ARCHS: dict[str, dict[str, Any]] = {
    'pico': dict(channels=32, depths=(1, 1, 2, 1), groups=(8, 16, 32, 64), mlp_ratio=3.0),
    'tiny': dict(channels=64, depths=(4, 4, 18, 4), groups=(4, 8, 16, 32), layer_scale=1.0),
    'small': dict(channels=80, depths=(4, 4, 21, 4), groups=(5, 10, 20, 40), layer_scale=1.0,
                  post_norm=True),
    'base': dict(channels=112, depths=(4, 4, 21, 4), groups=(7, 14, 28, 56), layer_scale=1.0,
                 post_norm=True),
    'large': dict(channels=160, depths=(5, 5, 22, 5), groups=(10, 20, 40, 80), layer_scale=1.0,
                  offset_scale=2.0, post_norm=True),
    'xlarge': dict(channels=192, depths=(5, 5, 24, 5), groups=(12, 24, 48, 96), layer_scale=1.0,
                   offset_scale=2.0, post_norm=True),
    'huge': dict(channels=320, depths=(6, 6, 32, 6), groups=(10, 20, 40, 80), dw_kernel_size=5,
                 res_post_norm=True, level2_post_norm=True,
                 level2_post_norm_block_ids=(5, 11, 17, 23, 29), center_feature_scale=True),
    'giant': dict(channels=512, depths=(2, 2, 48, 4), groups=(16, 32, 64, 128), dw_kernel_size=5,
                  post_norm=True, level2_post_norm=True,
                  level2_post_norm_block_ids=(5, 11, 17, 23, 29, 35, 41, 47),
                  center_feature_scale=True),
}
FLASH_INTERNIMAGE_ARCHS: dict[str, dict[str, Any]] = {
    'pico': INTERNIMAGE_ARCHS['pico'],
    'tiny': INTERNIMAGE_ARCHS['tiny'],
    'small': dict(INTERNIMAGE_ARCHS['small'], dw_kernel_size=3),
    'base': dict(INTERNIMAGE_ARCHS['base'], dw_kernel_size=3, offset_scale=0.5),
    'large': dict(INTERNIMAGE_ARCHS['large'], dw_kernel_size=3, dcn_output_bias=True,
                  mlp_fc2_bias=True),
}


@dataclass(frozen=True)
class InternImageArch:
    """What decides an InternImage's weights and arithmetic; fields are the published keywords.

    Args:
        channels: Width of the first level; it doubles from level to level.
        depths: Blocks of each of the four levels.
        groups: Deformable groups of each level; each divides its level's width.
        mlp_ratio: Hidden width of the MLP over the block's width.
        layer_scale: Initial value of the two per-channel factors of a block; None has none.
        offset_scale: Factor on grid and offsets of the deformable operator.
        post_norm: Normalise behind (True) or before (False) operator and MLP.
        res_post_norm: One more norm behind operator and MLP (pre-norm models only).
        dw_kernel_size: Depthwise convolution that feeds the offsets. None: 3 for DCNv3, no
            such convolution for DCNv4.
        level2_post_norm, level2_post_norm_block_ids: Norms behind these blocks of level 2.
        center_feature_scale: Blend operator output and its input, per group.
        remove_center: Drop the centre tap.
        norm_layer: ``'LN'`` or ``'BN'`` in stem, downsampling and DCNv3; blocks always use LN.
        act_layer: ``'GELU'``, ``'ReLU'`` or ``'SiLU'``.
        dcn_output_bias: Bias in DCNv4's output projection (DCNv3 always has one).
        mlp_fc2_bias: Bias in the MLP's second layer.

    Raises:
        ValueError: for a value outside these bounds, naming it.
    """

    channels: int
    depths: tuple[int, ...]
    groups: tuple[int, ...]
    mlp_ratio: float = 4.0
    layer_scale: float | None = None
    offset_scale: float = 1.0
    post_norm: bool = False
    res_post_norm: bool = False
    dw_kernel_size: int | None = None
    level2_post_norm: bool = False
    level2_post_norm_block_ids: tuple[int, ...] | None = None
    center_feature_scale: bool = False
    remove_center: bool = False
    norm_layer: str = 'LN'
    act_layer: str = 'GELU'
    dcn_output_bias: bool = True
    mlp_fc2_bias: bool = True

    def __post_init__(self) -> None:
        for name in ('depths', 'groups', 'level2_post_norm_block_ids'):
            object.__setattr__(self, name, tuple(getattr(self, name) or ()))
        if self.channels < 2 or self.channels % 2:
            refuse('channels', self.channels, 'an even number of at least 2')
        for name in ('depths', 'groups'):
            value = getattr(self, name)
            if len(value) != _NUM_LEVELS or min(value) < 1:
                refuse(name, value, f'{_NUM_LEVELS} positive numbers')
        for width, groups in zip(self.widths, self.groups, strict=True):
            if width % groups:
                refuse('groups', self.groups, f'divisors of the level widths {self.widths}')
        if self.norm_layer not in _NORMS:
            refuse('norm_layer', self.norm_layer, f'one of {_NORMS}')
        if self.act_layer not in _ACTIVATIONS:
            refuse('act_layer', self.act_layer, f'one of {tuple(_ACTIVATIONS)}')
        if self.post_norm and self.res_post_norm:
            refuse('res_post_norm', True, 'False where post_norm is set')
        if self.mlp_ratio <= 0:
            refuse('mlp_ratio', self.mlp_ratio, 'a positive number')
        ids = self.level2_post_norm_block_ids
        if self.level2_post_norm != bool(ids):
            refuse('level2_post_norm_block_ids', ids,
                   'block numbers exactly when level2_post_norm is set')
        if ids and (sorted(set(ids)) != list(ids) or ids[0] < 0 or ids[-1] >= self.depths[2]):
            refuse('level2_post_norm_block_ids', ids,
                   f'rising block numbers below depths[2] = {self.depths[2]}')

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four levels."""
        return tuple(self.channels * 2**i for i in range(_NUM_LEVELS))


class _ToNHWC(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class _ToNCHW(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def _conv_norm(channels: int, kind: str, nhwc_out: bool = True) -> nn.Sequential:
    """Norm behind a convolution (NCHW in); the index of the norm is part of its weight key."""
    if kind == 'LN':
        tail = [] if nhwc_out else [_ToNCHW()]
        return nn.Sequential(_ToNHWC(), nn.LayerNorm(channels, eps=1e-6), *tail)
    return nn.Sequential(nn.BatchNorm2d(channels), *([_ToNHWC()] if nhwc_out else []))


def _block_norm(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(channels, eps=1e-6))


class _Stem(nn.Module):
    """Image (N, 3, H, W) -> features (N, H/4, W/4, C), sizes rounded up twice."""

    def __init__(self, cfg: InternImageArch, in_channels: int) -> None:
        super().__init__()
        half = cfg.channels // 2
        self.conv1 = nn.Conv2d(in_channels, half, 3, stride=2, padding=1)
        self.norm1 = _conv_norm(half, cfg.norm_layer, nhwc_out=False)
        self.act = _ACTIVATIONS[cfg.act_layer]()
        self.conv2 = nn.Conv2d(half, cfg.channels, 3, stride=2, padding=1)
        self.norm2 = _conv_norm(cfg.channels, cfg.norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))


class _Downsample(nn.Module):
    """(N, H, W, C) -> (N, H/2, W/2, 2C), sizes rounded up."""

    def __init__(self, channels: int, norm_layer: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = _conv_norm(2 * channels, norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)))


class _MLP(nn.Module):
    def __init__(self, channels: int, cfg: InternImageArch) -> None:
        super().__init__()
        hidden = int(channels * cfg.mlp_ratio)
        self.fc1 = nn.Linear(channels, hidden)
        self.act = _ACTIVATIONS[cfg.act_layer]()
        self.fc2 = nn.Linear(hidden, channels, bias=cfg.mlp_fc2_bias)
        for layer in (self.fc1, self.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def _build_core(core_op: str, cfg: InternImageArch, channels: int, groups: int) -> nn.Module:
    shared = dict(channels=channels, group=groups, kernel_size=3, stride=1, pad=1, dilation=1,
                  offset_scale=cfg.offset_scale, dw_kernel_size=cfg.dw_kernel_size,
                  center_feature_scale=cfg.center_feature_scale, remove_center=cfg.remove_center)
    if core_op == 'DCNv4':
        return DCNv4(output_bias=cfg.dcn_output_bias, **shared)
    core = {'DCNv3': DCNv3, 'DCNv3Unshared': DCNv3Unshared}[core_op]
    return core(act_layer=cfg.act_layer, norm_layer=cfg.norm_layer, **shared)


class _Block(nn.Module):
    """Deformable operator and MLP, each with norm and residual; (N, H, W, C) -> same."""

    def __init__(self, cfg: InternImageArch, core_op: str, level: int, drop_path: float,
                 with_cp: bool) -> None:
        super().__init__()
        channels = cfg.widths[level]
        self.post_norm = cfg.post_norm
        self.with_cp = with_cp
        self.norm1 = _block_norm(channels)
        self.dcn = _build_core(core_op, cfg, channels, cfg.groups[level])
        self.norm2 = _block_norm(channels)
        self.mlp = _MLP(channels, cfg)
        self.drop_path = DropPath(drop_path)
        self.res_post_norm1 = _block_norm(channels) if cfg.res_post_norm else None
        self.res_post_norm2 = _block_norm(channels) if cfg.res_post_norm else None
        self.gamma1 = self.gamma2 = None
        if cfg.layer_scale is not None:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(cfg.layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(cfg.layer_scale)))

    def _branch(self, x: Tensor, layer: nn.Module, norm: nn.Module, res_norm: nn.Module | None,
                gamma: Tensor | None) -> Tensor:
        x = norm(layer(x)) if self.post_norm else layer(norm(x))
        if res_norm is not None:
            x = res_norm(x)
        return self.drop_path(x if gamma is None else gamma * x)

    def _forward(self, x: Tensor) -> Tensor:
        x = x + self._branch(x, self.dcn, self.norm1, self.res_post_norm1, self.gamma1)
        return x + self._branch(x, self.mlp, self.norm2, self.res_post_norm2, self.gamma2)

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


class _Level(nn.Module):
    """Blocks of one resolution; returns its features and the input of the next level."""

    def __init__(self, cfg: InternImageArch, core_op: str, level: int,
                 drop_path: Sequence[float], with_cp: bool) -> None:
        super().__init__()
        channels = cfg.widths[level]
        self.blocks = nn.ModuleList(
            _Block(cfg, core_op, level, rate, with_cp) for rate in drop_path)
        has_norm = not cfg.post_norm or cfg.center_feature_scale
        self.norm = _block_norm(channels) if has_norm else None
        self.post_norm_of_block = {}
        if level == 2 and cfg.level2_post_norm:
            ids = cfg.level2_post_norm_block_ids
            self.post_norm_of_block = {block: i for i, block in enumerate(ids)}
            self.post_norms = nn.ModuleList(_block_norm(channels) for _ in ids)
        last = level == _NUM_LEVELS - 1
        self.downsample = None if last else _Downsample(channels, cfg.norm_layer)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.post_norm_of_block:
                x = self.post_norms[self.post_norm_of_block[i]](x)
        if self.norm is not None:
            x = self.norm(x)
        return x, x if self.downsample is None else self.downsample(x)


@MODELS.register_module()
class InternImage(BaseModule):
    """InternImage: image (N, 3, H, W) -> feature maps (N, C_i, H_i, W_i), strides 4, 8, 16, 32.

    Sizes are rounded up at every halving, so any H and W will do. A named ``arch`` has the
    settings of the published detection and segmentation configs; keywords given beside it win.
    ``pico`` is the project's own small one for demonstrations on a CPU.

    Args:
        arch: Name of a preset (``InternImage.archs``), a mapping of :class:`InternImageArch`'s
            fields, or None (then ``channels``, ``depths`` and ``groups`` are needed).
        core_op: ``'DCNv3'``, ``'DCNv4'``, or ``'DCNv3Unshared'``, the model that the paper's
            ablation compares with: a projection of its own for each kernel point.
        drop_path_rate: Stochastic depth of the last block; rises linearly from 0.
        out_indices: Levels to return, rising numbers within 0..3.
        frozen_stages: -1 trains all; 0 freezes the stem; k also freezes levels 0..k-1 (their
            downsampling included). Frozen parts stay in eval mode.
        with_cp: Recompute the blocks in the backward pass to save memory.
        in_channels: Channels of the image.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=FILE)``.
        **settings: Any field of :class:`InternImageArch`.

    Raises:
        ValueError: unknown arch or setting, or a value out of bounds, naming it.
    """

    archs = INTERNIMAGE_ARCHS
    arch_defaults: dict[str, Any] = {}
    core_ops: tuple[str, ...] = _CORE_OPS
    checkpoint_may_lack = (r'\.gamma1$', r'\.gamma2$')  # T is classified without layer scale

    def __init__(self, arch: str | Mapping[str, Any] | None = None, core_op: str = 'DCNv3', *,
                 drop_path_rate: float = 0.0, out_indices: Sequence[int] = (0, 1, 2, 3),
                 frozen_stages: int = -1, with_cp: bool = False, in_channels: int = 3,
                 init_cfg: Any = None, **settings: Any) -> None:
        super().__init__(init_cfg=init_cfg)
        if core_op not in self.core_ops:
            refuse('core_op', core_op, f'one of {self.core_ops}')
        self.cfg = cfg = resolve_arch(type(self), InternImageArch, arch, settings,
                                      ('channels', 'depths', 'groups'), self.arch_defaults)
        if core_op != 'DCNv4' and not cfg.dcn_output_bias:
            refuse('dcn_output_bias', False, f'True with core_op={core_op!r}')
        self.out_indices = check_out_indices(out_indices, _NUM_LEVELS, 'level')
        if frozen_stages not in range(-1, _NUM_LEVELS + 1):
            refuse('frozen_stages', frozen_stages, f'a number within -1..{_NUM_LEVELS}')
        if not 0 <= drop_path_rate < 1:
            refuse('drop_path_rate', drop_path_rate, 'a number within [0, 1)')
        self.frozen_stages = frozen_stages
        self.in_channels = in_channels

        self.patch_embed = _Stem(cfg, in_channels)
        num_blocks = sum(cfg.depths)
        rates = [drop_path_rate * i / max(1, num_blocks - 1) for i in range(num_blocks)]
        self.levels = nn.ModuleList()
        for level, depth in enumerate(cfg.depths):
            start = sum(cfg.depths[:level])
            self.levels.append(
                _Level(cfg, core_op, level, rates[start:start + depth], with_cp))
        self._freeze()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the returned feature maps."""
        return tuple(self.cfg.widths[i] for i in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of ``out_indices``: NCHW, in channels-last memory (no copy is made).

        Args:
            x: Image (N, in_channels, H, W).

        Raises:
            ValueError: for another number of dimensions or channels.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            refuse('input shape', tuple(x.shape), f'(N, {self.in_channels}, H, W)')
        x = self.patch_embed(x)
        outs = []
        for i, level in enumerate(self.levels):
            features, x = level(x)
            if i in self.out_indices:
                outs.append(features.permute(0, 3, 1, 2))
        return tuple(outs)

    def train(self, mode: bool = True) -> InternImage:
        """As ``nn.Module.train``, but frozen parts stay in eval mode."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for part in (self.patch_embed, *self.levels[:self.frozen_stages]):
            part.eval()
            part.requires_grad_(False)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer number of a parameter, for layer-wise learning-rate decay.

        The stem is 0, block b (counted over all levels) 1 + b, whatever is not in a level
        ``num_layers - 1``. A level's downsampling and output norm count as the next level's
        first block (in the last level: as that level's first), its ``post_norms.k`` as
        block k, as in the published training.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What leads to this backbone in that name, e.g. ``'backbone.'``.

        Returns:
            (layer number, number of layers = blocks + 2).
        """
        depths = self.cfg.depths
        num_layers = sum(depths) + 2
        parts = param_name.removeprefix(prefix).split('.')
        if not param_name.startswith(prefix) or parts[0] not in ('patch_embed', 'levels'):
            return num_layers - 1, num_layers
        if parts[0] == 'patch_embed':
            return 0, num_layers
        level = int(parts[1])
        if parts[2] in ('blocks', 'post_norms'):
            return 1 + sum(depths[:level]) + int(parts[3]), num_layers
        return 1 + sum(depths[:min(level, _NUM_LEVELS - 2) + 1]), num_layers

    def get_finetune_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer number of a parameter in the published fine-tuning on ImageNet.

        As :meth:`get_layer_depth`, but blocks alone are layers: block b is b, the stem goes with
        the first block, and what has no block behind it (the last level's norm), the
        ``post_norms`` and everything outside the backbone go with the last one.

        Returns:
            (layer number, number of layers = blocks).
        """
        layer, num_layers = self.get_layer_depth(param_name, prefix)
        blocks = num_layers - 2
        last_norm = f'levels.{_NUM_LEVELS - 1}.norm.'
        if layer > blocks or '.post_norms.' in param_name or last_norm in param_name:
            return blocks - 1, blocks
        return max(layer, 1) - 1, blocks


@MODELS.register_module()
class FlashInternImage(InternImage):
    """InternImage on DCNv4; arguments, input and output as :class:`InternImage`.

    Output projection and second MLP layer have no bias unless asked for (L has both).
    """

    archs = FLASH_INTERNIMAGE_ARCHS
    arch_defaults = dict(dcn_output_bias=False, mlp_fc2_bias=False)
    core_ops = ('DCNv4',)

    def __init__(self, arch: str | Mapping[str, Any] | None = None, core_op: str = 'DCNv4',
                 **kwargs: Any) -> None:
        super().__init__(arch, core_op, **kwargs)
