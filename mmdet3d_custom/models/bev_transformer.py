"""The transformer of BEVFormer v2: embeddings of cameras and levels, encoder, fusion, decoder.

Source: C. Yang et al., "BEVFormer v2", arXiv:2211.10439, and the parameter names of its release.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdcn.layers import MultiScaleDeformableAttention
from mmdet3d_custom.models.bev_attention import (
    MSDeformableAttention3D,
    SpatialCrossAttention,
    TemporalSelfAttention,
)
from mmdet3d_custom.models.bev_decoder import (
    BEVFormerDecoder,
    DecoderOutputs,
    run_in_float32,
)
from mmdet3d_custom.models.bev_encoder import PC_RANGE, BEVFormerEncoder
from mmdet3d_custom.models.temporal_fusion import ResNetFusion

_DEFORMABLE = (SpatialCrossAttention, TemporalSelfAttention, MSDeformableAttention3D,
               MultiScaleDeformableAttention)


class ExtraQueries(NamedTuple):
    """Queries beside the learned ones, the same in every group.

    Letters: B samples, K queries, C channels.

    Attributes:
        reference_points: (B, K, 3), (x, y, z) in 0..1 of the range.
        query_pos: (B, K, C).
        content: (B, K, C).
        valid: (B, K) bool; the others fill a sample up: no query sees them, they are not matched
            and predict nothing.
    """

    reference_points: Tensor
    query_pos: Tensor
    content: Tensor
    valid: Tensor


@MODELS.register_module()
class PerceptionTransformerV2(BaseModule):
    """From the maps of the cameras to the states of the queries.

    Args:
        embed_dims: C.
        num_cams: N; each camera has an embedding of its own, so their order matters.
        num_feature_levels: L, levels that the encoder sees.
        num_frames: T, the current frame included; a fusion exists with more than one only.
        pc_range: Minimum and maximum (x, y, z, x, y, z) of the map in m.
        encoder: Config of the encoder; missing are ``embed_dims``, ``pc_range``, ``num_levels``.
        decoder: Config of the decoder; missing is ``embed_dims``.
        fusion: Arguments of :class:`ResNetFusion` but the channels in and out.
        init_cfg: As in mmengine.
    """

    def __init__(self, embed_dims: int = 256, num_cams: int = 6, num_feature_levels: int = 4,
                 num_frames: int = 1, pc_range: Sequence[float] = PC_RANGE,
                 encoder: dict | None = None, decoder: dict | None = None,
                 fusion: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.embed_dims = embed_dims
        self.num_cams = num_cams
        self.num_feature_levels = num_feature_levels
        self.encoder = MODELS.build(
            encoder or dict(type=BEVFormerEncoder),
            default_args=dict(embed_dims=embed_dims, pc_range=pc_range,
                              num_levels=num_feature_levels))
        self.decoder = MODELS.build(decoder or dict(type=BEVFormerDecoder),
                                    default_args=dict(embed_dims=embed_dims))
        self.fusion = None
        if num_frames > 1:
            self.fusion = ResNetFusion(num_frames * embed_dims, embed_dims, **(fusion or {}))
        self.level_embeds = nn.Parameter(torch.randn(num_feature_levels, embed_dims))
        self.cams_embeds = nn.Parameter(torch.randn(num_cams, embed_dims))
        self.reference_points = nn.Linear(embed_dims, 3)

    def init_weights(self) -> None:
        """All matrices and kernels Xavier-uniform, embeddings too; deformable layers their own."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.zeros_(self.reference_points.bias)
        for module in self.modules():
            if isinstance(module, _DEFORMABLE):
                module.init_weights()
        self._is_init = True

    def encode(self, features: Sequence[Tensor], bev_query: Tensor, bev_pos: Tensor,
               lidar2img: Tensor, image_shape: tuple[int, int], bev_shape: tuple[int, int],
               bda: Tensor | None = None) -> Tensor:
        """The BEV map of one frame.

        Args:
            features: Levels (B, N, C, h, w), finest first; those beyond the encoder's are ignored.
            bev_query: (Hb * Wb, C).
            bev_pos: (Hb * Wb, C).
            lidar2img: (B, N, 4, 4), from the current LiDAR frame to pixels of this frame.
            image_shape: (height, width) of the padded pictures.
            bev_shape: (Hb, Wb).
            bda: (B, 3, 3), BEV augmentation; ``None`` is the identity.

        Returns:
            (B, Hb * Wb, C).

        Raises:
            ValueError: There are too few levels, or not as many cameras as embeddings.
        """
        levels = list(features)[:self.num_feature_levels]
        if len(levels) < self.num_feature_levels or levels[0].shape[1] != self.num_cams:
            raise ValueError(
                f'features is not valid: got {len(levels)} levels of '
                f'{tuple(levels[0].shape) if levels else None}, expected {self.num_feature_levels} '
                f'of (B, {self.num_cams}, {self.embed_dims}, h, w)')
        samples = levels[0].shape[0]
        cameras = self.cams_embeds[:, None]
        value = torch.cat([
            level.flatten(3).transpose(2, 3) + (cameras + self.level_embeds[index])
            for index, level in enumerate(levels)], 2)
        shapes = torch.tensor([level.shape[-2:] for level in levels], device=value.device)
        sizes = shapes.prod(1)
        return self.encoder(
            bev_query.expand(samples, -1, -1), bev_pos.expand(samples, -1, -1), value, shapes,
            sizes.cumsum(0) - sizes, lidar2img, image_shape, bev_shape, bda)

    def fuse(self, maps: Sequence[Tensor], bev_shape: tuple[int, int]) -> Tensor:
        """One map (B, Hb * Wb, C) of those of all frames, oldest first, without gaps."""
        return maps[0] if self.fusion is None else self.fusion(maps, bev_shape)

    def decode(self, bev: Tensor, query_embedding: Tensor, bev_shape: tuple[int, int],
               reg_branches: Sequence[nn.Module], num_groups: int = 1,
               extra: ExtraQueries | None = None) -> DecoderOutputs:
        """States of the queries.

        Args:
            bev: (B, Hb * Wb, C), the fused map.
            query_embedding: (groups * Q, 2 * C), positional part and content of learned queries.
            bev_shape: (Hb, Wb).
            reg_branches: The head's branches of the 10-code, one for each layer.
            num_groups: Groups.
            extra: Further queries, appended to each group.

        Returns:
            Of B samples and groups * (Q + K) queries.
        """
        samples = bev.shape[0]
        query_pos, content = query_embedding.unflatten(0, (num_groups, -1)).chunk(2, -1)
        reference = run_in_float32(self.reference_points, query_pos).sigmoid()
        query_pos, content, reference = (part.expand(samples, -1, -1, -1)
                                         for part in (query_pos, content, reference))
        ignored = None
        if extra is not None:
            learned = torch.zeros(reference.shape[:3], dtype=torch.bool, device=bev.device)
            ignored = _append(learned, ~extra.valid).flatten(1)
            reference = _append(reference, extra.reference_points.to(reference.dtype))
            query_pos = _append(query_pos, extra.query_pos)
            content = _append(content, extra.content)
        return self.decoder(content.flatten(1, 2), query_pos.flatten(1, 2), bev,
                            reference.flatten(1, 2), bev_shape, reg_branches, num_groups, ignored)


def _append(learned: Tensor, extra: Tensor) -> Tensor:
    """(B, groups, Q, ...) and (B, K, ...) to (B, groups, Q + K, ...)."""
    extra = extra[:, None].expand(-1, learned.shape[1], *extra.shape[1:])
    return torch.cat([learned, extra.to(learned.dtype)], 2)
