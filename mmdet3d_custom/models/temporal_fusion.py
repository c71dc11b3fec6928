"""Fusion of the BEV maps of all frames, and the rule for frames that a scene does not have.

Source: C. Yang et al., "BEVFormer v2", arXiv:2211.10439, and its release.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmdet.models.backbones.resnet import BasicBlock
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def fill_missing(maps: Sequence[Tensor | None], valid: Tensor, current: int) -> list[Tensor]:
    """Give frames that a sample lacks the map of their neighbour on the side of the current one.

    Going outward from the current frame, a missing past frame takes a detached copy of the next
    newer one, which may be such a copy itself; a missing future frame of the next older one.

    Args:
        maps: T maps (B, Q, C); ``None`` where no sample has the frame.
        valid: (B, T) bool, whether each sample has each frame.
        current: Index of the current frame, which every sample has.

    Returns:
        T maps without gaps.
    """
    filled = list(maps)
    for step, end in ((-1, -1), (1, len(filled))):
        for frame in range(current + step, end, step):
            neighbour = filled[frame - step].detach()
            if filled[frame] is None:
                filled[frame] = neighbour
            else:
                there = valid[:, frame, None, None].to(neighbour.device)
                filled[frame] = torch.where(there, filled[frame], neighbour)
    return filled


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch normalisation without a change of its running statistics."""
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in module.modules()
            if isinstance(norm, _BatchNorm)]
    for norm, _, count in kept:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, rate, count in kept:
            norm.momentum, norm.num_batches_tracked = rate, count


def _twice(block: nn.Module) -> Callable[[], tuple[AbstractContextManager, AbstractContextManager]]:
    """Contexts of the first and the second pass of a checkpointed block."""
    return lambda: (nullcontext(), _statistics_kept(block))


@MODELS.register_module()
class ResNetFusion(BaseModule):
    """Residual blocks on the concatenated maps of all frames, then a linear layer and a norm.

    Args:
        in_channels: T * C, of all maps together.
        out_channels: C.
        inter_channels: Width of the blocks; ``None`` is ``in_channels``. Where it differs, the
            shortcut of the first block is a convolution.
        num_layers: Number of blocks.
        norm_cfg: Norm of the blocks.
        with_cp: Compute the blocks once more in the backward pass; running statistics see each
            batch once all the same.
        init_cfg: As in mmengine.
    """

    def __init__(self, in_channels: int, out_channels: int, inter_channels: int | None = None,
                 num_layers: int = 3, norm_cfg: dict | None = None, with_cp: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        norm_cfg = dict(type='BN') if norm_cfg is None else norm_cfg
        inter_channels = in_channels if inter_channels is None else inter_channels
        self.with_cp = with_cp
        self.layers = ModuleList()
        for index in range(num_layers):
            width, shortcut = in_channels if index == 0 else inter_channels, None
            if width != inter_channels:
                shortcut = nn.Sequential(
                    build_conv_layer(None, width, inter_channels, 3, padding=1, bias=False),
                    build_norm_layer(norm_cfg, inter_channels)[1])
            self.layers.append(BasicBlock(width, inter_channels, downsample=shortcut,
                                          norm_cfg=norm_cfg))
        self.layer_norm = nn.Sequential(nn.Linear(inter_channels, out_channels),
                                        nn.LayerNorm(out_channels))

    def forward(self, maps: Sequence[Tensor], bev_shape: tuple[int, int]) -> Tensor:
        """Fuse.

        Args:
            maps: T maps (B, Hb * Wb, C), oldest frame first.
            bev_shape: (Hb, Wb).

        Returns:
            (B, Hb * Wb, C).
        """
        fused = torch.cat(list(maps), -1).transpose(1, 2).unflatten(2, bev_shape).contiguous()
        for block in self.layers:
            if self.with_cp and torch.is_grad_enabled():
                fused = checkpoint(block, fused, use_reentrant=False, context_fn=_twice(block))
            else:
                fused = block(fused)
        return self.layer_norm(fused.flatten(2).transpose(1, 2))
