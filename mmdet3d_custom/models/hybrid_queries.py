"""Hybrid object queries: boxes of the perspective head as further queries of the BEV head.

The paper says: the boxes of all views go to the BEV plane, an NMS with IoU 0.3 and the best 100
follow, and the center of each box is a reference point beside the learned ones. The release has
nothing of it. What the paper does not say is our design: duplicates are dropped whatever their
class, since a query of a place may become any; the height of the box is kept for the third
coordinate of the reference; the positional part is computed from the reference, the content is
learned by rank; and what a sample lacks of the 100 is filled up with queries that do not count.
Source: C. Yang et al., "BEVFormer v2", arXiv:2211.10439, section 3.4.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet3d_custom.models.bev_transformer import ExtraQueries


@MODELS.register_module()
class HybridQueries(BaseModule):
    """Queries at the places of proposals.

    Args:
        embed_dims: C, even.
        pc_range: Minimum and maximum (x, y, z, x, y, z) of the map in m.
        num_queries: K, queries of a sample.
        iou_threshold: Of two boxes on the ground that overlap more, the better one stays.
        score_threshold: Proposals below it are left out.
        init_cfg: See ``BaseModule``.

    Raises:
        ValueError: An argument is not valid.
    """

    def __init__(self, embed_dims: int = 256,
                 pc_range: Sequence[float] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0),
                 num_queries: int = 100, iou_threshold: float = 0.3,
                 score_threshold: float = 0.0, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        if embed_dims < 4 or embed_dims % 4:
            raise ValueError(f'embed_dims is not valid: got {embed_dims}, expected a positive '
                             'multiple of 4; change it with that of the BEV head')
        if len(pc_range) != 6 or any(low >= high for low, high in zip(
                pc_range[:3], pc_range[3:], strict=True)):
            raise ValueError(f'pc_range is not valid: got {tuple(pc_range)}, expected minimum and '
                             'maximum (x, y, z, x, y, z); correct the order')
        if num_queries < 1:
            raise ValueError(f'num_queries is not valid: got {num_queries}, expected at least 1; '
                             'leave hybrid_queries out for none')
        self.iou_threshold, self.score_threshold = iou_threshold, score_threshold
        self.num_queries = num_queries
        self.num_feats = embed_dims // 2
        bounds = torch.tensor(pc_range, dtype=torch.float32).unflatten(0, (2, 3))
        self.register_buffer('bounds', bounds, persistent=False)
        self.position = nn.Sequential(nn.Linear(3 * self.num_feats, embed_dims), nn.ReLU(),
                                      nn.Linear(embed_dims, embed_dims))
        self.content = nn.Embedding(num_queries, embed_dims)

    def forward(self, proposals: Sequence[InstanceData],
                batch_img_metas: Sequence[dict[str, Any]]) -> ExtraQueries:
        """The queries of a batch.

        Args:
            proposals: Of each sample ``bboxes_3d`` and ``scores_3d``, in the LiDAR frame before
                the BEV augmentation. No gradient reaches them.
            batch_img_metas: Of each sample ``bda`` (3, 3), if there is a BEV augmentation.

        Raises:
            ValueError: There are not as many proposals as samples.
        """
        if len(proposals) != len(batch_img_metas):
            raise ValueError(f'proposals is not valid: got those of {len(proposals)} samples, '
                             f'expected {len(batch_img_metas)}; pass one entry for each sample')
        points, valid = map(torch.stack, zip(*(
            self._references(found, meta)
            for found, meta in zip(proposals, batch_img_metas, strict=True)), strict=True))
        encoded = sine_encoding(points, self.num_feats)
        content = self.content.weight.expand(len(points), -1, -1)
        return ExtraQueries(points, self.position(encoded), content, valid)

    @torch.no_grad()
    def _references(self, found: InstanceData, meta: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Reference points (K, 3) of a sample and which of them count (K,), the best first."""
        device = self.bounds.device
        boxes = found.bboxes_3d
        rows = torch.cat([boxes.gravity_center, boxes.tensor[:, 3:7]], 1).to(device).float()
        scores = found.scores_3d.to(device).float()
        usable = rows.isfinite().all(1) & (scores >= self.score_threshold)
        rows, scores = rows[usable], scores[usable]
        rows = rows[suppress_on_ground(rows, scores, self.iou_threshold)]
        bda = torch.as_tensor(meta.get('bda', torch.eye(3))).to(device, torch.float32)
        low, high = self.bounds
        # Not a matrix product, which autocast would round.
        points = ((rows[:, None, :3] * bda).sum(-1) - low) / (high - low)
        # Outside in the plane there is nothing to attend to; heights are only clamped.
        points = points[((points[:, :2] >= 0) & (points[:, :2] <= 1)).all(1)][:self.num_queries]
        references = points.new_full((self.num_queries, 3), 0.5)
        references[:len(points)] = points.clamp(0, 1)
        return references, torch.arange(self.num_queries, device=device) < len(points)


def suppress_on_ground(rows: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Index (n,) of the boxes that stay, the best first.

    Only boxes whose circles meet are compared, on the CPU: mmcv's rotated NMS compares all pairs,
    which takes half a second for those of six views, and it may lack kernels for the GPU.

    Args:
        rows: (N, 7), x y z, length, width, height in m, yaw counter-clockwise.
        scores: (N,).
        iou_threshold: Of their rectangles on the ground.
    """
    from mmcv.ops import box_iou_rotated
    order = scores.argsort(descending=True, stable=True)
    rectangles = rows[order][:, (0, 1, 3, 4, 6)].cpu()
    radius = rectangles[:, 2:4].norm(dim=1) / 2
    distances = (rectangles[:, None, :2] - rectangles[:, :2]).square().sum(-1)
    near = distances < (radius + radius[:, None]).square()
    pairs = near.triu(1).nonzero()
    if len(pairs):
        better, worse = rectangles[pairs].unbind(1)
        pairs = pairs[box_iou_rotated(better, worse, aligned=True) > iou_threshold]
    kept = [True] * len(rectangles)
    for better, worse in pairs.tolist():  # in the order of the better box
        kept[worse] = kept[worse] and not kept[better]
    return order[torch.tensor(kept, dtype=torch.bool, device=order.device)]


def sine_encoding(points: Tensor, num_feats: int, temperature: float = 10000.0) -> Tensor:
    """Sines and cosines (..., 3 * num_feats) of points (..., 3) in 0..1, coordinate by coordinate.

    Args:
        points: In float32.
        num_feats: Features of a coordinate, even: sines first.
        temperature: The longest wave is about so many times the shortest, which is the range.
    """
    exponent = torch.arange(num_feats // 2, device=points.device) / (num_feats // 2)
    angles = points[..., None] * (2 * math.pi) / temperature**exponent
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)
