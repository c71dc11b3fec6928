"""Attention of the BEV encoder: among the cells of the map, and from the cells into the cameras.

Sources: Z. Li et al., "BEVFormer: Learning Bird's-Eye-View Representation from Multi-Camera Images
via Spatiotemporal Transformers", arXiv:2203.17270; C. Yang et al., "BEVFormer v2",
arXiv:2211.10439. Parameter names follow the released checkpoints.

Locations and the deformable operator are in float32 at least, under autocast as well.
"""
from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ops_dcn import ms_deform_attn

# Far outside of a picture (0..1), and still exact enough to be multiplied by its size.
_OUTSIDE = 10.0


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor, converted to float32 if it is narrower."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class CameraHits(NamedTuple):
    """Which queries each camera of each sample sees, and where.

    Letters: B samples, N cameras, Q queries, M the longest list of a camera, D heights.

    Attributes:
        rows: (B*N*M,) int64, rows of the queries (B*Q, C); lists are padded with any row.
        valid: (B*N, M) bool, False in the padding.
        points: (B*N, M, D, 2), (x, y) in 0..1 of the picture, or outside.
        count: (B, Q, 1), by how many cameras a query is seen, at least 1.
    """

    rows: Tensor
    valid: Tensor
    points: Tensor
    count: Tensor


def collect_hits(points: Tensor, inside: Tensor) -> CameraHits:
    """List the queries that each camera sees at any height.

    Args:
        points: (B, N, Q, D, 2), (x, y) in 0..1 of the picture where ``inside``, else anything.
        inside: (B, N, Q, D) bool.

    Returns:
        The lists. A query keeps all its heights, also those that the camera does not see.

    Raises:
        ValueError: The shapes do not fit.
    """
    if points.dim() != 5 or points.shape[-1] != 2 or inside.shape != points.shape[:-1]:
        raise ValueError(f'inside.shape is not valid: got {tuple(inside.shape)} with points '
                         f'{tuple(points.shape)}, expected (B, N, Q, D) and (B, N, Q, D, 2)')
    samples, _, queries = inside.shape[:3]
    seen = inside.any(-1)
    lengths = seen.sum(-1)
    # One query at least, so that the weights have a gradient where no camera sees anything.
    longest = max(int(lengths.max()), 1)
    index = torch.argsort(seen.to(torch.uint8), dim=-1, descending=True, stable=True)
    index = index[..., :longest]
    valid = torch.arange(longest, device=index.device) < lengths[..., None]
    points = points.nan_to_num(_OUTSIDE).clamp(-_OUTSIDE, _OUTSIDE)
    points = points.gather(2, index[..., None, None].expand(-1, -1, -1, *points.shape[3:]))
    first = torch.arange(samples, device=index.device).view(-1, 1, 1) * queries
    count = seen.sum(1).clamp(min=1)[..., None]
    return CameraHits((index + first).flatten(), valid.flatten(0, 1), points.flatten(0, 1),
                      count.to(points.dtype))


def _start_deformable(module: nn.Module, repeats: int) -> None:
    """Weights of a new layer: head g looks in direction 2*pi*g/G, point p at p + 1 pixels.

    Args:
        module: Has ``num_heads``, ``num_points`` and the projections.
        repeats: Levels, or entries of the queue, which all start alike.
    """
    for layer in (module.sampling_offsets, module.attention_weights):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    angle = torch.arange(module.num_heads, dtype=torch.float32) * (2 * math.pi / module.num_heads)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    distance = torch.arange(1, module.num_points + 1, dtype=torch.float32)
    pattern = (direction[:, None, None] * distance[:, None]).expand(-1, repeats, -1, -1)
    with torch.no_grad():
        module.sampling_offsets.bias.copy_(pattern.flatten())
    for name in ('value_proj', 'output_proj'):
        if (layer := getattr(module, name, None)) is not None:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def _check_heads(embed_dims: int, num_heads: int) -> None:
    if num_heads < 1 or embed_dims < 1 or embed_dims % num_heads:
        raise ValueError(f'num_heads is not valid: got {num_heads}, expected a divisor of '
                         f'embed_dims ({embed_dims}); change either')


@MODELS.register_module()
class MSDeformableAttention3D(BaseModule):
    """Deformable attention around the D heights of a query; no output projection, no identity.

    The P points of a level are viewed as (P / D, D): the height is the fast axis, so point p
    samples around height p modulo D.

    Args:
        embed_dims: C, in and out.
        num_heads: G, a divisor of ``embed_dims``.
        num_levels: L, maps of a camera.
        num_points: P, points per level and head, a multiple of ``num_heights``.
        num_heights: D.
        init_cfg: Without effect: the layer always starts as :meth:`init_weights` says.

    Raises:
        ValueError: An argument is not valid.
    """

    def __init__(self, embed_dims: int = 256, num_heads: int = 8, num_levels: int = 4,
                 num_points: int = 8, num_heights: int = 4,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        _check_heads(embed_dims, num_heads)
        if num_heights < 1 or num_points < 1 or num_points % num_heights:
            raise ValueError(f'num_points is not valid: got {num_points}, expected a multiple of '
                             f'num_heights ({num_heights}); change either')
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        self.num_heights = num_heights
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dims, samples * 2)
        self.attention_weights = nn.Linear(embed_dims, samples)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.init_weights()

    def init_weights(self) -> None:
        """Offsets on a compass, equal attention, value projection Xavier-uniform."""
        _start_deformable(self, self.num_levels)
        self._is_init = True  # mmengine's walk over a model must not start the layer again

    def forward(self, query: Tensor, value: Tensor, points: Tensor, spatial_shapes: Tensor,
                level_start_index: Tensor) -> Tensor:
        """Attend from the queries of each camera to its maps.

        Args:
            query: (N, Q, C), N cameras of all samples.
            value: (N, S, C), the levels one after the other, each row by row.
            points: (N, Q, D, 2), (x, y) in 0..1 of the picture.
            spatial_shapes: (L, 2) int64, height and width of each level.
            level_start_index: (L,) int64, row of ``value`` where each level begins.

        Returns:
            (N, Q, C), in float32 at least.

        Raises:
            ValueError: An argument has the wrong shape, dtype or device.
        """
        if points.shape[-2:] != (self.num_heights, 2):
            raise ValueError(f'points.shape is not valid: got {tuple(points.shape)}, expected '
                             f'(N, Q, {self.num_heights}, 2)')
        value = at_least_float32(self.value_proj(value)).unflatten(-1, (self.num_heads, -1))
        weights = self.attention_weights(query).unflatten(-1, (self.num_heads, -1))
        weights = weights.softmax(-1, dtype=value.dtype)
        weights = weights.unflatten(-1, (self.num_levels, self.num_points))
        sizes = spatial_shapes.flip(-1).to(query.device, value.dtype)
        offsets = self.sampling_offsets(query).to(value.dtype).unflatten(
            -1, (self.num_heads, self.num_levels, -1, self.num_heights, 2))
        offsets = offsets / sizes[:, None, None]
        locations = points.to(value.dtype)[:, :, None, None, None] + offsets
        return ms_deform_attn(value, spatial_shapes, level_start_index,
                              locations.flatten(4, 5), weights)


@MODELS.register_module()
class SpatialCrossAttention(BaseModule):
    """From each cell of the BEV map to the cameras that see it, averaged over these.

    Each camera of each sample gathers its own queries: any batch size, any mixture of matrices.

    Args:
        embed_dims: C.
        num_heads: Heads, a divisor of ``embed_dims``.
        num_levels: Maps of a camera.
        num_points: Points per level and head, a multiple of ``num_heights``.
        num_heights: D, heights of a cell.
        dropout: Probability of zeroing an element of the output in training.
        batch_first: Always True: arguments are (B, Q, C).
        init_cfg: Without effect.

    Raises:
        ValueError: An argument is not valid.
    """

    def __init__(self, embed_dims: int = 256, num_heads: int = 8, num_levels: int = 4,
                 num_points: int = 8, num_heights: int = 4, dropout: float = 0.1,
                 batch_first: bool = True, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        if not batch_first:
            raise ValueError('batch_first is not valid: got False, expected True')
        self.batch_first = batch_first
        self.embed_dims = embed_dims
        self.deformable_attention = MSDeformableAttention3D(
            embed_dims, num_heads, num_levels, num_points, num_heights)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)
        self.init_weights()

    def init_weights(self) -> None:
        """The attention's own start; output projection Xavier-uniform without bias."""
        self.deformable_attention.init_weights()
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)
        self._is_init = True

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None,
                identity: Tensor | None = None, *, camera_hits: CameraHits,
                spatial_shapes: Tensor, level_start_index: Tensor, **kwargs: Any) -> Tensor:
        """Attend from the cells to the cameras.

        Args:
            query: (B, Q, C).
            key: Ignored.
            value: (B, N, S, C), all levels of all cameras.
            identity: Added to the output; ``None`` means ``query``.
            camera_hits: Which camera sees which query, and where.
            spatial_shapes: (L, 2) int64, height and width of each level.
            level_start_index: (L,) int64, row of ``value`` where each level begins.
            **kwargs: Ignored, positional encodings too: layers pass all they have.

        Returns:
            (B, Q, C).

        Raises:
            ValueError: An argument has the wrong shape.
        """
        samples, queries, channels = query.shape
        if value is None or value.dim() != 4 or value.shape[0] != samples:
            got = None if value is None else tuple(value.shape)
            raise ValueError(f'value.shape is not valid: got {got}, expected (B, N, S, C) with '
                             f'B = {samples} as in query')
        rows = query.flatten(0, 1).index_select(0, camera_hits.rows)
        found = self.deformable_attention(
            rows.view(*camera_hits.valid.shape, channels), value.flatten(0, 1),
            camera_hits.points, spatial_shapes, level_start_index)
        found = torch.where(camera_hits.valid[..., None], found, 0).flatten(0, 1)
        slots = found.new_zeros(samples * queries, channels).index_add(0, camera_hits.rows, found)
        slots = slots.view_as(query) / camera_hits.count
        out = self.output_proj(slots.to(self.output_proj.weight.dtype))
        return self.dropout(out) + (query if identity is None else identity)


@MODELS.register_module()
class TemporalSelfAttention(BaseModule):
    """Deformable attention among the cells of the BEV map.

    BEVFormer attends here to the map of the previous frame and to the current one. The second
    version aligns frames elsewhere and always passes the current map in both places, which the
    checkpoints' shapes still show: offsets and weights for a queue of two, predicted from the
    query twice (without and with its positional encoding), and the mean over both. As both entries
    have one value, they are sampled in one call with the points of both.

    Args:
        embed_dims: C.
        num_heads: Heads, a divisor of ``embed_dims``.
        num_points: Points per head and entry of the queue.
        num_bev_queue: Entries of the queue.
        dropout: Probability of zeroing an element of the output in training.
        batch_first: Always True: arguments are (B, Q, C).
        init_cfg: Without effect.

    Raises:
        ValueError: An argument is not valid.
    """

    def __init__(self, embed_dims: int = 256, num_heads: int = 8, num_points: int = 4,
                 num_bev_queue: int = 2, dropout: float = 0.1, batch_first: bool = True,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        _check_heads(embed_dims, num_heads)
        if not batch_first:
            raise ValueError('batch_first is not valid: got False, expected True')
        self.batch_first = batch_first
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.num_points = num_points
        self.num_bev_queue = num_bev_queue
        samples = num_bev_queue * num_heads * num_points
        self.sampling_offsets = nn.Linear(2 * embed_dims, samples * 2)
        self.attention_weights = nn.Linear(2 * embed_dims, samples)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)
        self.init_weights()

    def init_weights(self) -> None:
        """Offsets on a compass, equal attention, projections Xavier-uniform."""
        _start_deformable(self, self.num_bev_queue)
        self._is_init = True

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None,
                identity: Tensor | None = None, query_pos: Tensor | None = None, *,
                bev_points: Tensor, bev_shape: Tensor, **kwargs: Any) -> Tensor:
        """Attend among the cells.

        Args:
            query: (B, Q, C), Q = Hb * Wb.
            key: Ignored.
            value: Ignored; it is ``query`` without ``query_pos``.
            identity: Added to the output; ``None`` means ``query`` without ``query_pos``.
            query_pos: (B, Q, C), positional encoding.
            bev_points: (Q, 2), (x, y) in 0..1 of each cell.
            bev_shape: (1, 2) int64, (Hb, Wb).
            **kwargs: Ignored: layers pass all they have.

        Returns:
            (B, Q, C).

        Raises:
            ValueError: An argument has the wrong shape, dtype or device.
        """
        positioned = query if query_pos is None else query + query_pos
        both = torch.cat([query, positioned], -1)
        values = at_least_float32(self.value_proj(query)).unflatten(-1, (self.num_heads, -1))
        per_head = (self.num_heads, self.num_bev_queue, self.num_points)
        weights = self.attention_weights(both).unflatten(-1, per_head)
        weights = weights.softmax(-1, dtype=values.dtype) / self.num_bev_queue
        offsets = self.sampling_offsets(both).to(values.dtype).unflatten(-1, (*per_head, 2))
        offsets = offsets / bev_shape[0].flip(-1).to(query.device, values.dtype)
        locations = bev_points.to(values.dtype)[:, None, None, None] + offsets
        # (B, Q, G, 1, queue * P, 2): the queue becomes further points of the one level.
        found = ms_deform_attn(values, bev_shape, bev_shape.new_zeros(1),
                               locations.flatten(3, 4).unsqueeze(3),
                               weights.flatten(3, 4).unsqueeze(3))
        out = self.output_proj(found.to(self.output_proj.weight.dtype))
        return self.dropout(out) + (query if identity is None else identity)
