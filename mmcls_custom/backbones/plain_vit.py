"""Plain ViT as a detector's backbone: windowed attention with a few global blocks.

Sources: Y. Li et al., "Benchmarking Detection Transfer Learning with Vision Transformers",
arXiv:2111.11429 (hybrid attention, shared relative position tables, four resolution modules);
Y. Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022,
arXiv:2203.16527 (decomposed relative positions, last map only, convolutions across windows).
Names of weights follow timm's ViT, which MAE, MoCo v3 and DeiT share.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmcls_custom.backbones.arguments import refuse, resolve_arch
from mmcls_custom.backbones.plain_vit_layers import Block, RelativePositionBias, resolution_modules

_REL_POS = ('shared_table', 'decomposed', 'none')
_OUT_TYPES = ('pyramid', 'last')
_NUM_MAPS = 4

PLAIN_VIT_ARCHS: dict[str, dict[str, Any]] = {
    'pico': dict(channels=64, depth=8, heads=4),
    'base': dict(channels=768, depth=12, heads=12),
    'large': dict(channels=1024, depth=24, heads=16),
    'huge': dict(channels=1280, depth=32, heads=16),
}


@dataclass(frozen=True)
class PlainViTArch:
    """What decides a plain ViT's weights and arithmetic.

    Args:
        channels: Width C; a multiple of ``heads`` and of 32.
        depth: Blocks; a multiple of 4.
        heads: Attention heads.
        mlp_ratio: Hidden width of the MLP over C.
        patch_size: Side of a patch in pixels.
        window_size: Side of an attention window in tokens; 14 is the pre-training grid.
        global_blocks: Blocks (counted from 0) that attend to the whole map. None: the last of
            each quarter; ``()``: windows only; ``range(depth)``: no windows.
        conv_blocks: Blocks that are followed by a residual convolution across windows.
        abs_pos: Whether a position embedding is added to the patches.
        rel_pos: ``'shared_table'`` (one additive table for all windowed blocks, one for all
            global ones), ``'decomposed'`` (per block and axis, depends on the query) or
            ``'none'``.
        layer_scale: Initial value of the two per-channel factors of a block; None has none.
        image_size: Image side in pixels whose token grid sizes the global tables.
        pretrain_image_size: Image side in pixels whose token grid sizes ``pos_embed``.

    Raises:
        ValueError: for a value outside these bounds, naming it.
    """

    channels: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    patch_size: int = 16
    window_size: int = 14
    global_blocks: tuple[int, ...] | None = None
    conv_blocks: tuple[int, ...] = ()
    abs_pos: bool = True
    rel_pos: str = 'shared_table'
    layer_scale: float | None = None
    image_size: int = 1024
    pretrain_image_size: int = 224

    def __post_init__(self) -> None:
        for name in ('heads', 'patch_size', 'window_size', 'mlp_ratio'):
            if getattr(self, name) <= 0:
                refuse(name, getattr(self, name), 'a positive number')
        if self.channels < 1 or self.channels % self.heads or self.channels % 32:
            refuse('channels', self.channels, f'a multiple of heads = {self.heads} and of 32')
        if self.depth < 1 or self.depth % _NUM_MAPS:
            refuse('depth', self.depth, f'a multiple of {_NUM_MAPS}')
        for name in ('image_size', 'pretrain_image_size'):
            size = getattr(self, name)
            if size < 1 or size % self.patch_size:
                refuse(name, size, f'a multiple of patch_size = {self.patch_size}')
        if self.rel_pos not in _REL_POS:
            refuse('rel_pos', self.rel_pos, f'one of {_REL_POS}')
        if self.global_blocks is None:
            object.__setattr__(self, 'global_blocks', self.out_blocks)
        for name in ('global_blocks', 'conv_blocks'):
            ids = tuple(getattr(self, name))
            object.__setattr__(self, name, ids)
            if sorted(set(ids)) != list(ids) or not set(ids) <= set(range(self.depth)):
                refuse(name, ids, f'rising block numbers within 0..{self.depth - 1}')

    @property
    def out_blocks(self) -> tuple[int, ...]:
        """Blocks whose output becomes a feature map: the last of each quarter."""
        quarter = self.depth // _NUM_MAPS
        return tuple(quarter * (i + 1) - 1 for i in range(_NUM_MAPS))

    @property
    def global_grid(self) -> int:
        """Side of the token map for which global relative positions are stored."""
        return self.image_size // self.patch_size

    @property
    def pos_grid(self) -> int:
        """Side of the token map for which ``pos_embed`` is stored."""
        return self.pretrain_image_size // self.patch_size


class _PatchEmbed(nn.Module):
    """Image (N, 3, H, W) -> tokens (N, H/p, W/p, C), the image zero-padded to whole patches."""

    def __init__(self, in_channels: int, channels: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        p = self.proj.stride[0]
        x = F.pad(x, (0, -x.shape[3] % p, 0, -x.shape[2] % p))
        return self.proj(x).permute(0, 2, 3, 1)


@MODELS.register_module()
class PlainViT(BaseModule):
    """Plain ViT: image (N, 3, H, W) -> feature maps (N, C, H_i, W_i) of one width.

    Any H and W will do: the image is zero-padded at the bottom and right to whole patches. No
    class token, no final norm. Most blocks attend within windows, the last of each quarter to
    the whole map.

    Expected weights (C channels, D depth, P patch side, A heads), for every block i < D:

    ==================================================  ==================================
    ``patch_embed.proj.weight``, ``.bias``              (C, 3, P, P), (C,)
    ``pos_embed``                                       (1, G*G, C), row-major, no class row;
                                                        G = pretrain_image_size / P = 14; only
                                                        with ``abs_pos``
    ``blocks.{i}.norm1.*``, ``blocks.{i}.norm2.*``      (C,)
    ``blocks.{i}.attn.qkv.weight``, ``.bias``           (3C, C), (3C,): q, k, v in turn
    ``blocks.{i}.attn.proj.weight``, ``.bias``          (C, C), (C,)
    ``blocks.{i}.mlp.fc1.weight``, ``.bias``            (4C, C), (4C,)
    ``blocks.{i}.mlp.fc2.weight``, ``.bias``            (C, 4C), (C,)
    ``blocks.{i}.gamma_1``, ``blocks.{i}.gamma_2``      (C,), only with ``layer_scale``
    ==================================================  ==================================

    With ``rel_pos='shared_table'`` two more, of all blocks: ``window_rel_pos.`` and
    ``global_rel_pos.relative_position_bias_table``, ((2S - 1)**2, A), where S is
    ``window_size`` = 14 and image_size / P = 64: (729, A) and (16129, A). Row
    (dy + S - 1) * (2S - 1) + dx + S - 1, dy and dx being query minus key. With
    ``rel_pos='decomposed'`` instead ``blocks.{i}.attn.rel_pos_h`` and ``rel_pos_w``,
    (2S - 1, C/A), with the S of the block. The rest belongs to the detector and starts fresh:
    ``resolution_modules.0.{0,1,3}.*`` and ``resolution_modules.1.0.*``, ``out_norms.{0..3}.*``
    (with ``out_norm``), ``blocks.{i}.residual.*`` (with ``conv_blocks``).

    Args:
        arch: Name of a preset (``PlainViT.archs``), a mapping of :class:`PlainViTArch`'s fields,
            or None (then ``channels``, ``depth`` and ``heads`` are needed). ``pico`` is the
            project's own small one for demonstrations on a CPU.
        out_type: ``'pyramid'``: the outputs of the last block of each quarter at strides 4, 8, 16,
            32 (for patches of 16 pixels; arXiv:2111.11429); ``'last'``: the last map only.
        out_norm: Layer norm on each returned map, before its resolution module.
        drop_path_rate: Stochastic depth of the last block; rises linearly from 0.
        frozen_stages: -1 trains all; 0 freezes patch and position embedding; k also freezes
            blocks 0..k-1. Frozen parts stay in eval mode.
        with_cp: Recompute blocks in the backward pass to save memory: all (True) or those of
            these numbers.
        in_channels: Channels of the image.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=FILE)``.
        **settings: Any field of :class:`PlainViTArch`.

    Raises:
        ValueError: unknown arch or setting, or a value out of bounds, naming it.
    """

    archs = PLAIN_VIT_ARCHS
    # MAE, MoCo v3 and DeiT have no relative positions, BEiT no absolute ones; the last three are
    # the detector's.
    checkpoint_may_lack = (
        r'^pos_embed$', r'^window_rel_pos\.', r'^global_rel_pos\.', r'\.rel_pos_[hw]$',
        r'^resolution_modules\.', r'^out_norms\.', r'\.residual\.')

    def __init__(self, arch: str | Mapping[str, Any] | None = None, *, out_type: str = 'pyramid',
                 out_norm: bool = False, drop_path_rate: float = 0.0, frozen_stages: int = -1,
                 with_cp: bool | Sequence[int] = False, in_channels: int = 3,
                 init_cfg: Any = None, **settings: Any) -> None:
        super().__init__(init_cfg=init_cfg)
        self.cfg = cfg = resolve_arch(type(self), PlainViTArch, arch, settings,
                                      ('channels', 'depth', 'heads'))
        if out_type not in _OUT_TYPES:
            refuse('out_type', out_type, f'one of {_OUT_TYPES}')
        if frozen_stages not in range(-1, cfg.depth + 1):
            refuse('frozen_stages', frozen_stages, f'a number within -1..{cfg.depth}')
        if not 0 <= drop_path_rate < 1:
            refuse('drop_path_rate', drop_path_rate, 'a number within [0, 1)')
        if isinstance(with_cp, bool):
            with_cp = range(cfg.depth) if with_cp else ()
        if not set(with_cp) <= set(range(cfg.depth)):
            refuse('with_cp', with_cp, f'True, False or block numbers within 0..{cfg.depth - 1}')
        self.out_type = out_type
        self.frozen_stages = frozen_stages
        self.in_channels = in_channels

        self.patch_embed = _PatchEmbed(in_channels, cfg.channels, cfg.patch_size)
        self.pos_embed = None
        if cfg.abs_pos:
            self.pos_embed = nn.Parameter(torch.zeros(1, cfg.pos_grid**2, cfg.channels))
        self.blocks = nn.ModuleList(
            self._block(i, drop_path_rate * i / (cfg.depth - 1), i in with_cp)
            for i in range(cfg.depth))
        self.window_rel_pos = self.global_rel_pos = None
        if cfg.rel_pos == 'shared_table':
            # A table that no block would use takes no gradient, which distributed training forbids.
            if len(cfg.global_blocks) < cfg.depth:
                self.window_rel_pos = RelativePositionBias(cfg.window_size, cfg.heads)
            if cfg.global_blocks:
                self.global_rel_pos = RelativePositionBias(cfg.global_grid, cfg.heads)
        self.resolution_modules = None
        if out_type == 'pyramid':
            self.resolution_modules = resolution_modules(cfg.channels)
        self.out_norms = None
        if out_norm:
            self.out_norms = nn.ModuleList(
                nn.LayerNorm(cfg.channels, eps=1e-6) for _ in self.out_channels)
        self._init_transformer()
        self._freeze()

    def _block(self, index: int, drop_path: float, with_cp: bool) -> Block:
        cfg = self.cfg
        window = None if index in cfg.global_blocks else cfg.window_size
        axis_grid = (window or cfg.global_grid) if cfg.rel_pos == 'decomposed' else None
        return Block(cfg.channels, cfg.heads, int(cfg.channels * cfg.mlp_ratio), window=window,
                     axis_grid=axis_grid, layer_scale=cfg.layer_scale,
                     conv_residual=index in cfg.conv_blocks, drop_path=drop_path, with_cp=with_cp)

    @torch.no_grad()
    def _init_transformer(self) -> None:
        """BEiT's scheme: normal of std 0.02 cut at one std, depth-scaled output layers.

        Relative positions start at zero, detector parts (resolution modules) as PyTorch makes them.
        """
        linears = [m for m in self.blocks.modules() if isinstance(m, nn.Linear)]
        for layer in (self.patch_embed.proj, *linears):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.02, b=0.02)
            nn.init.zeros_(layer.bias)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02, a=-0.02, b=0.02)
        for number, block in enumerate(self.blocks, 1):
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.div_((2 * number)**0.5)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the returned feature maps."""
        return (self.cfg.channels,) * (_NUM_MAPS if self.out_type == 'pyramid' else 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps, contiguous NCHW; strides 4, 8, 16, 32 or, with ``out_type='last'``, 16.

        Map sizes count from the image padded to whole patches; that of stride 32 rounds up.

        Args:
            x: Image (N, in_channels, H, W).

        Raises:
            ValueError: for another number of dimensions or channels, or an image without pixels.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels or 0 in x.shape[2:]:
            refuse('input shape', tuple(x.shape), f'(N, {self.in_channels}, H, W)')
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + self._positions(*x.shape[1:3])
        window_bias, global_bias = self._biases(x)
        out_blocks = self.cfg.out_blocks if self.out_type == 'pyramid' else (self.cfg.depth - 1,)
        outs = []
        for i, block in enumerate(self.blocks):
            x = block(x, global_bias if block.window is None else window_bias)
            if i in out_blocks:
                outs.append(self._feature_map(x, len(outs)))
        return tuple(outs)

    def _positions(self, height: int, width: int) -> Tensor:
        """Position embedding (1, height, width, C), resized from the stored grid."""
        grid = self.cfg.pos_grid
        pos = self.pos_embed.unflatten(1, (grid, grid))
        if (height, width) == (grid, grid):
            return pos
        pos = F.interpolate(pos.permute(0, 3, 1, 2), (height, width), mode='bicubic',
                            align_corners=False)
        return pos.permute(0, 2, 3, 1)

    def _biases(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Additive attention bias of windowed and of global blocks, gathered once per forward."""
        # Four global blocks share one map of heads x 4096 x 4096 at 1024 px: converting it here
        # keeps one copy of it in half precision instead of four.
        device, dtype = x.device.type, x.dtype
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        window = whole = None
        if self.window_rel_pos is not None:
            window = self.window_rel_pos(self.cfg.window_size, self.cfg.window_size).to(dtype)
        if self.global_rel_pos is not None:
            whole = self.global_rel_pos(*x.shape[1:3]).to(dtype)
        return window, whole

    def _feature_map(self, x: Tensor, index: int) -> Tensor:
        if self.out_norms is not None:
            x = self.out_norms[index](x)
        x = x.permute(0, 3, 1, 2).contiguous()
        return x if self.resolution_modules is None else self.resolution_modules[index](x)

    def train(self, mode: bool = True) -> PlainViT:
        """As ``nn.Module.train``, but frozen parts stay in eval mode."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        if self.pos_embed is not None:
            self.pos_embed.requires_grad_(False)
        for part in (self.patch_embed, *self.blocks[:self.frozen_stages]):
            part.eval()
            part.requires_grad_(False)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer number of a parameter, for layer-wise learning-rate decay.

        Patch and position embedding are 0, block b is 1 + b; the shared relative position tables
        and what belongs to the detector are ``num_layers - 1``, as in BEiT.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What leads to this backbone in that name, e.g. ``'backbone.'``.

        Returns:
            (layer number, number of layers = blocks + 2).
        """
        num_layers = self.cfg.depth + 2
        parts = param_name.removeprefix(prefix).split('.')
        if param_name.startswith(prefix) and parts[0] in ('patch_embed', 'pos_embed'):
            return 0, num_layers
        # Convolutions across windows are no part of the pre-trained blocks.
        if param_name.startswith(prefix) and parts[0] == 'blocks' and parts[2] != 'residual':
            return 1 + int(parts[1]), num_layers
        return num_layers - 1, num_layers
