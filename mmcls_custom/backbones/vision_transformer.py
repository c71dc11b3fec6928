"""Vision transformer with DCNv4 instead of self-attention.

Source: Y. Xiong et al., "Efficient Deformable ConvNets", CVPR 2024, arXiv:2401.06197, table 8.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmcls_custom.backbones.arguments import resolve_out_indices
from ops_dcn import DCNv4


class _DeformableAttention(BaseModule):
    """DCNv4 with what stood around the attention: dropout, layer scale and stochastic depth."""

    def __init__(self, attention: nn.Module, group_channels: int,
                 dw_kernel_size: int | None) -> None:
        super().__init__()
        channels = attention.embed_dims
        self.dcn = DCNv4(channels, group=channels // group_channels,
                         dw_kernel_size=dw_kernel_size)
        self.proj_drop = attention.proj_drop
        self.gamma1 = attention.gamma1
        self.out_drop = attention.out_drop

    def init_weights(self) -> None:
        # A truncated normal on every linear layer, set for the whole model, must not reach DCNv4.
        super().init_weights()
        self.dcn.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return self.out_drop(self.gamma1(self.proj_drop(self.dcn(x))))


@MODELS.register_module()
class DeformableVisionTransformer(VisionTransformer):
    """ViT whose self-attention layers are DCNv4 layers (3x3), without class token.

    Value projection, DCNv4 operator and output projection replace the whole attention; pre-norms,
    MLPs and position embedding stay. Every layer works on the map (N, H, W, C) of the patches.
    Image (N, 3, H, W) of any size -> a tuple of maps (N, C, H / 16, W / 16), rounded up; a
    classifier takes their mean (``GlobalAveragePooling`` as neck). The first DCNv4 outputs 0, so
    each block starts as its MLP alone; offsets learn from the second step on.

    Unpublished and chosen here: groups of 16 channels, as in InternImage. ViT-B then has 84.4 M
    parameters and 16.4 G multiply-adds (86.6 M and 17.5 G with attention).

    Args:
        arch: As mmpretrain's ``VisionTransformer``, whose ``num_heads`` has no effect, or
            ``'pico'``, the project's own small one for demonstrations on a CPU.
        group_channels: Channels that share offsets and weights; divides the width.
        dw_kernel_size: Odd side of a depthwise convolution that feeds the offsets; None has none.
        out_type: ``'featmap'``, or ``'avg_featmap'`` for (N, C), normalised once more behind the
            mean.
        with_cp: Recompute the blocks in the backward pass to save memory.
        out_indices: Blocks to return; negative ones count from the last.
        **kwargs: As mmpretrain's ``VisionTransformer``; a class token is not possible.

    Raises:
        ValueError: another ``out_type``, an out index out of bounds, or a width that
            ``group_channels`` does not divide.
    """

    arch_zoo = {
        'pico': dict(embed_dims=64, num_layers=6, num_heads=4, feedforward_channels=192),
        **VisionTransformer.arch_zoo}

    def __init__(self, arch: str | Mapping[str, Any] = 'deit-base', *, group_channels: int = 16,
                 dw_kernel_size: int | None = None, out_type: str = 'featmap',
                 with_cp: bool = False, out_indices: int | Sequence[int] = -1,
                 **kwargs: Any) -> None:
        if out_type not in ('featmap', 'avg_featmap'):
            raise ValueError(f"out_type is not valid: got {out_type!r}, expected 'featmap' or "
                             "'avg_featmap'; there is no class token")
        super().__init__(arch, out_type=out_type, with_cls_token=False, **kwargs)
        self.out_indices = resolve_out_indices(out_indices, self.num_layers, 'block')
        if group_channels < 1 or self.embed_dims % group_channels:
            raise ValueError(f'group_channels is not valid: got {group_channels}, expected a '
                             f'divisor of the width {self.embed_dims}')
        for layer in self.layers:
            layer.attn = _DeformableAttention(layer.attn, group_channels, dw_kernel_size)
        self.with_cp = with_cp
        if self.frozen_stages > 0:
            self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image (N, 3, H, W) -> one output of ``out_type`` per out index."""
        x, size = self.patch_embed(x)
        x = x + resize_pos_embed(self.pos_embed, self.patch_resolution, size,
                                 mode=self.interpolate_mode, num_extra_tokens=0)
        x = self.pre_norm(self.drop_after_pos(x)).unflatten(1, size)
        outs = []
        for i, layer in enumerate(self.layers):
            recompute = self.with_cp and x.requires_grad
            x = checkpoint(layer, x, use_reentrant=False) if recompute else layer(x)
            if i == len(self.layers) - 1 and self.final_norm:
                x = self.ln1(x)
            if i in self.out_indices:
                outs.append(self._format_output(x.flatten(1, 2), size))
        return tuple(outs)

    def train(self, mode: bool = True) -> DeformableVisionTransformer:
        """As ``nn.Module.train``, but frozen parts stay in eval mode."""
        super().train(mode)
        if self.frozen_stages > 0:
            self._freeze_stages()
        return self
