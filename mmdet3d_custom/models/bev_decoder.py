"""The decoder: queries attend to each other and to the BEV map, and refine their references.

Sources: X. Zhu et al., "Deformable DETR", arXiv:2010.04159 (refinement); Q. Chen et al., "Group
DETR", arXiv:2207.13085 (groups); C. Yang et al., "BEVFormer v2", arXiv:2211.10439.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmcv.cnn.bricks.transformer import FFN, BaseTransformerLayer, MultiheadAttention
from mmdet.models.layers import inverse_sigmoid
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from mmdcn.layers import MultiScaleDeformableAttention
from mmdet3d_custom.models.bev_attention import at_least_float32


def run_in_float32(branch: nn.Module, states: Tensor) -> Tensor:
    """A branch of the head outside of autocast: half precision is half a metre at 50 m."""
    with torch.autocast(states.device.type, enabled=False):
        return at_least_float32(branch(states.to(next(branch.parameters()).dtype)))


@MODELS.register_module()
class GroupMultiheadAttention(MultiheadAttention):
    """mmcv's attention with identity, within each of several groups of queries.

    Args:
        embed_dims: C.
        num_heads: Heads.
        dropout: Of the attention weights and of the output.
        batch_first: Always True: arguments are (B, Q, C).
        init_cfg: As in mmengine.

    Raises:
        ValueError: ``batch_first`` is False.
    """

    def __init__(self, embed_dims: int = 256, num_heads: int = 8, dropout: float = 0.1,
                 batch_first: bool = True, init_cfg: dict | list[dict] | None = None) -> None:
        if not batch_first:
            raise ValueError('batch_first is not valid: got False, expected True')
        super().__init__(embed_dims, num_heads, attn_drop=dropout, init_cfg=init_cfg,
                         dropout_layer=dict(type='Dropout', drop_prob=dropout), batch_first=True)

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None,
                identity: Tensor | None = None, query_pos: Tensor | None = None,
                key_pos: Tensor | None = None, attn_mask: Tensor | None = None,
                key_padding_mask: Tensor | None = None, *, num_groups: int = 1,
                **kwargs: Any) -> Tensor:
        """Attend within each group.

        Args:
            query: (B, groups * Q, C), group after group.
            key: Ignored: keys are the queries.
            value: Ignored: values are the queries without ``query_pos``.
            identity: Added to the output; ``None`` means ``query`` without ``query_pos``.
            query_pos: Of the shape of ``query``, added to queries and keys.
            key_pos: Ignored.
            attn_mask: (Q, Q), True where a query must not look.
            key_padding_mask: (B, groups * Q) bool, True for queries that nobody looks at.
            num_groups: Number of groups, a divisor of the number of queries.
            **kwargs: Ignored: layers pass all they have.

        Returns:
            (B, groups * Q, C).

        Raises:
            ValueError: The queries cannot be divided into the groups.
        """
        samples, queries, channels = query.shape
        if queries % num_groups:
            raise ValueError(f'num_groups is not valid: got {num_groups}, expected a divisor of '
                             f'the {queries} queries')
        shape = (samples * num_groups, queries // num_groups)
        values = query.reshape(*shape, channels).transpose(0, 1)
        keys = query if query_pos is None else query + query_pos
        keys = keys.reshape(*shape, channels).transpose(0, 1)
        mask = None if key_padding_mask is None else key_padding_mask.reshape(shape)
        # Without the weights themselves, which nobody reads, torch need not hold them all.
        out = self.attn(keys, keys, values, attn_mask=attn_mask, key_padding_mask=mask,
                        need_weights=False)[0]
        out = out.transpose(0, 1).reshape(samples, queries, channels)
        out = self.dropout_layer(self.proj_drop(out))
        return out + (query if identity is None else identity)


class DecoderOutputs(NamedTuple):
    """What the layers of the decoder give.

    Attributes:
        states: (B, Q, C) of each layer.
        raw_codes: (B, Q, 10) of each layer, as its branch gives it, float32.
        references: (B, Q, 3) of each layer, that its raw code is relative to: (x, y, z) in 0..1
            of the range; those of all layers but the first have no gradient.
    """

    states: list[Tensor]
    raw_codes: list[Tensor]
    references: list[Tensor]


@MODELS.register_module()
class BEVFormerDecoder(BaseModule):
    """Layers of self-attention, deformable attention to the BEV map and a feed-forward network.

    Args:
        num_layers: Number of layers.
        embed_dims: C.
        feedforward_channels: Hidden width of the feed-forward networks.
        num_heads: Heads of both attentions.
        num_points: Points that a head samples of the BEV map.
        dropout: Of attentions and feed-forward networks.
        init_cfg: As in mmengine.
    """

    def __init__(self, num_layers: int = 6, embed_dims: int = 256, feedforward_channels: int = 512,
                 num_heads: int = 8, num_points: int = 4, dropout: float = 0.1,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        attentions = [
            dict(type=GroupMultiheadAttention, embed_dims=embed_dims, num_heads=num_heads,
                 dropout=dropout),
            dict(type=MultiScaleDeformableAttention, embed_dims=embed_dims, num_heads=num_heads,
                 num_levels=1, num_points=num_points, dropout=dropout)]
        ffn = dict(type=FFN, embed_dims=embed_dims, feedforward_channels=feedforward_channels,
                   ffn_drop=dropout)
        self.layers = ModuleList([
            BaseTransformerLayer(
                attn_cfgs=[dict(attention) for attention in attentions], ffn_cfgs=dict(ffn),
                operation_order=('self_attn', 'norm', 'cross_attn', 'norm', 'ffn', 'norm'),
                batch_first=True) for _ in range(num_layers)])

    def forward(self, query: Tensor, query_pos: Tensor, bev: Tensor, reference_points: Tensor,
                bev_shape: tuple[int, int], reg_branches: Sequence[nn.Module],
                num_groups: int = 1, ignored: Tensor | None = None) -> DecoderOutputs:
        """Decode.

        Args:
            query: (B, Q, C), content of the queries, group after group.
            query_pos: (B, Q, C).
            bev: (B, Hb * Wb, C).
            reference_points: (B, Q, 3), (x, y, z) in 0..1 of the range, float32.
            bev_shape: (Hb, Wb).
            reg_branches: A branch for each layer, from (B, Q, C) to the 10-code.
            num_groups: Groups of queries that do not see each other.
            ignored: (B, Q) bool, True for queries that no other looks at.

        Returns:
            States, raw codes and references of all layers.
        """
        outputs = DecoderOutputs([], [], [])
        spatial_shapes = torch.tensor([bev_shape], device=bev.device)
        start = spatial_shapes.new_zeros(1)
        for layer, branch in zip(self.layers, reg_branches, strict=True):
            query = layer(query, None, bev, query_pos=query_pos, query_key_padding_mask=ignored,
                          reference_points=reference_points[:, :, None, :2],
                          spatial_shapes=spatial_shapes, level_start_index=start,
                          num_groups=num_groups)
            raw = run_in_float32(branch, query)
            outputs.states.append(query)
            outputs.raw_codes.append(raw)
            outputs.references.append(reference_points)
            delta = torch.cat([raw[..., :2], raw[..., 4:5]], -1)
            reference_points = (delta + inverse_sigmoid(reference_points)).sigmoid().detach()
        return outputs
