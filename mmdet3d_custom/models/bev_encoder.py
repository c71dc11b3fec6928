"""The BEV encoder: cells of the map, their projection into the cameras, layers, augmentation.

Sources: Z. Li et al., "BEVFormer", arXiv:2203.17270; C. Yang et al., "BEVFormer v2",
arXiv:2211.10439. Cells are numbered row by row: the row is the LiDAR's y, the column its x, and
row 0 and column 0 are at the minimum.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import FFN, BaseTransformerLayer
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, ModuleList
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmdet3d_custom.models.bev_attention import (
    SpatialCrossAttention,
    TemporalSelfAttention,
    at_least_float32,
    collect_hits,
)

PC_RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
_MIN_DEPTH = 1e-5
_HEIGHT_MARGIN = 0.5


def cell_centers(bev_shape: tuple[int, int], device: torch.device | str = 'cpu') -> Tensor:
    """Centers of the cells.

    Args:
        bev_shape: (Hb, Wb).
        device: Where the result is.

    Returns:
        (Hb * Wb, 2), (x, y) in 0..1 of the map, float32.
    """
    rows, columns = ((torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
                     for size in bev_shape)
    y, x = torch.meshgrid(rows, columns, indexing='ij')
    return torch.stack([x, y], -1).flatten(0, 1)


def pillar_points(bev_shape: tuple[int, int], pc_range: Sequence[float], num_heights: int,
                  device: torch.device | str = 'cpu') -> Tensor:
    """Points above the cells, at heights evenly from half a metre above the floor of the range.

    Args:
        bev_shape: (Hb, Wb).
        pc_range: Minimum and maximum (x, y, z, x, y, z) in m.
        num_heights: D.
        device: Where the result is.

    Returns:
        (Hb * Wb, D, 3), (x, y, z) in m in the LiDAR frame, lowest first, float32.
    """
    low = torch.tensor(pc_range[:3], device=device, dtype=torch.float32)
    size = torch.tensor(pc_range[3:], device=device, dtype=torch.float32) - low
    ground = cell_centers(bev_shape, device) * size[:2] + low[:2]
    height = float(pc_range[5] - pc_range[2])
    z = torch.linspace(_HEIGHT_MARGIN, height - _HEIGHT_MARGIN, num_heights, device=device)
    ground = ground[:, None].expand(-1, num_heights, -1)
    z = (z + low[2]).expand(len(ground), -1)[..., None]
    return torch.cat([ground, z], -1)


def project_points(points: Tensor, lidar2img: Tensor,
                   image_shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Project points into all cameras, in float32 at least.

    Multiplied out instead of a matrix product, which GPUs may compute with 10 bits (TF32) and
    autocast with 8.

    Args:
        points: (Q, D, 3) in m in the LiDAR frame.
        lidar2img: (B, N, 4, 4), to pixels of N cameras.
        image_shape: (height, width) that pixels are divided by: of the padded pictures.

    Returns:
        - Points (B, N, Q, D, 2), (x, y) in 0..1 of the picture; anything where it is behind.
        - (B, N, Q, D) bool: in front of the camera and strictly within the picture.
    """
    matrix = at_least_float32(lidar2img)[:, :, None, None]
    x, y, z = at_least_float32(points).to(matrix.dtype).unbind(-1)
    u, v, depth = (matrix[..., i, 0] * x + matrix[..., i, 1] * y + matrix[..., i, 2] * z
                   + matrix[..., i, 3] for i in range(3))
    positive = depth.clamp(min=_MIN_DEPTH)
    u = u / positive / image_shape[1]
    v = v / positive / image_shape[0]
    inside = (depth > _MIN_DEPTH) & (u > 0) & (u < 1) & (v > 0) & (v < 1)
    return torch.stack([u, v], -1), inside


def warp_bev(bev: Tensor, bda: Tensor, bev_shape: tuple[int, int],
             pc_range: Sequence[float] = PC_RANGE) -> Tensor:
    """Turn, scale and mirror BEV maps as the boxes were.

    What was at p is at bda @ p afterwards: a cell of the result looks at bda^-1 @ p, bilinearly,
    with zeros outside of the map. It is computed in metres, so the range need not be square.

    Args:
        bev: (B, Hb * Wb, C).
        bda: (B, 3, 3), of points in the LiDAR frame; maps with the identity are left as they are.
        bev_shape: (Hb, Wb).
        pc_range: Minimum and maximum (x, y, z, x, y, z) in m.

    Returns:
        (B, Hb * Wb, C), of the dtype of ``bev``.
    """
    bda = at_least_float32(bda)
    turned = (bda != torch.eye(3, device=bda.device, dtype=bda.dtype)).flatten(1).any(1)
    rows = turned.nonzero().flatten()
    if not len(rows):
        return bev
    low = torch.tensor(pc_range[:2], device=bev.device, dtype=bda.dtype)
    size = torch.tensor(pc_range[3:5], device=bev.device, dtype=bda.dtype) - low
    centers = cell_centers(bev_shape, bev.device).to(bda.dtype) * size + low
    inverse = torch.linalg.inv(bda[rows][:, :2, :2])
    source = (inverse[:, None] * centers[:, None]).sum(-1)  # exact where a product might be TF32
    grid = ((source - low) / size * 2 - 1).unflatten(1, bev_shape)
    maps = bev[rows].transpose(1, 2).unflatten(2, bev_shape).to(grid.dtype)
    warped = F.grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
    return bev.index_copy(0, rows, warped.flatten(2).transpose(1, 2).to(bev.dtype))


def _encoder_layer(embed_dims: int, feedforward_channels: int, num_heads: int, num_levels: int,
                   num_points: int, num_heights: int, dropout: float) -> BaseTransformerLayer:
    """TSA, norm, SCA, norm, FFN, norm."""
    attentions = [
        dict(type=TemporalSelfAttention, embed_dims=embed_dims, num_heads=num_heads,
             dropout=dropout),
        dict(type=SpatialCrossAttention, embed_dims=embed_dims, num_heads=num_heads,
             num_levels=num_levels, num_points=num_points, num_heights=num_heights,
             dropout=dropout)]
    return BaseTransformerLayer(
        attn_cfgs=attentions, batch_first=True,
        ffn_cfgs=dict(type=FFN, embed_dims=embed_dims, feedforward_channels=feedforward_channels,
                      ffn_drop=dropout),
        operation_order=('self_attn', 'norm', 'cross_attn', 'norm', 'ffn', 'norm'))


@MODELS.register_module()
class BEVFormerEncoder(BaseModule):
    """Layers that fill the BEV queries from the cameras of one frame.

    Args:
        num_layers: Number of layers.
        embed_dims: C.
        feedforward_channels: Hidden width of the feed-forward networks.
        num_heads: Heads of both attentions.
        num_levels: L, maps of a camera.
        num_points: Points per level and head in the cameras, a multiple of ``num_heights``.
        num_heights: D, heights of a cell that are projected.
        pc_range: Minimum and maximum (x, y, z, x, y, z) of the map in m.
        dropout: Of attentions and feed-forward networks.
        with_cp: Compute each layer once more in the backward pass instead of keeping what is
            inside of it: less memory, more time.
        init_cfg: As in mmengine.
    """

    def __init__(self, num_layers: int = 6, embed_dims: int = 256, feedforward_channels: int = 512,
                 num_heads: int = 8, num_levels: int = 4, num_points: int = 8,
                 num_heights: int = 4, pc_range: Sequence[float] = PC_RANGE, dropout: float = 0.1,
                 with_cp: bool = False, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.pc_range = tuple(pc_range)
        self.num_heights = num_heights
        self.num_levels = num_levels
        self.with_cp = with_cp
        self.layers = ModuleList([
            _encoder_layer(embed_dims, feedforward_channels, num_heads, num_levels, num_points,
                           num_heights, dropout) for _ in range(num_layers)])

    def forward(self, query: Tensor, query_pos: Tensor, value: Tensor, spatial_shapes: Tensor,
                level_start_index: Tensor, lidar2img: Tensor, image_shape: tuple[int, int],
                bev_shape: tuple[int, int], bda: Tensor | None = None) -> Tensor:
        """The BEV map of a frame.

        Args:
            query: (B, Hb * Wb, C), the BEV queries.
            query_pos: (B, Hb * Wb, C), their positional encoding.
            value: (B, N, S, C), the levels of N cameras one after the other, each row by row.
            spatial_shapes: (L, 2) int64, height and width of each level.
            level_start_index: (L,) int64, row of ``value`` where each level begins.
            lidar2img: (B, N, 4, 4), from the current LiDAR frame to the pixels of the cameras.
            image_shape: (height, width) of the padded pictures.
            bev_shape: (Hb, Wb).
            bda: (B, 3, 3), BEV augmentation that the result undergoes; ``None`` is the identity.

        Returns:
            (B, Hb * Wb, C).
        """
        device = query.device
        points = pillar_points(bev_shape, self.pc_range, self.num_heights, device)
        hits = collect_hits(*project_points(points, lidar2img, image_shape))
        options = dict(
            query_pos=query_pos, bev_points=cell_centers(bev_shape, device),
            bev_shape=torch.tensor([bev_shape], device=device), camera_hits=hits,
            spatial_shapes=spatial_shapes, level_start_index=level_start_index)
        for layer in self.layers:
            if self.with_cp and torch.is_grad_enabled():
                query = checkpoint(layer, query, None, value, use_reentrant=False, **options)
            else:
                query = layer(query, None, value, **options)
        return query if bda is None else warp_bev(query, bda, bev_shape, self.pc_range)
