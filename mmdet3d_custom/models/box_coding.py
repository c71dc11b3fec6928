"""The ten numbers that a query predicts, and boxes.

The code is cx, cy, log dx, log dy, cz, log dz, sin yaw, cos yaw, vx, vy in the LiDAR frame of
mmdet3d 1.x: the center is that of gravity, dx the length along the heading, dy the width. Raw
codes have the center as logits relative to a reference point.
Source: Y. Wang et al., "DETR3D", arXiv:2110.06922; the order of mmdet3d's converted checkpoints.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.layers import inverse_sigmoid
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet3d_custom.models.bev_attention import at_least_float32

CODE_SIZE = 10
_GRAVITY = (0.5, 0.5, 0.5)


def encode_boxes(boxes: LiDARInstance3DBoxes) -> Tensor:
    """Codes of boxes.

    Args:
        boxes: M boxes with velocities (9 columns).

    Returns:
        (M, 10) in m and m/s, float32; a size of zero gives an infinite entry.

    Raises:
        ValueError: The boxes have no velocities.
    """
    table = boxes.tensor
    if table.shape[-1] != 9:
        raise ValueError(f'bboxes_3d is not valid: got {table.shape[-1]} columns, expected 9 '
                         '(x, y, z, dx, dy, dz, yaw, vx, vy); load annotations with velocities')
    center, sizes, yaw = boxes.gravity_center, table[:, 3:6].log(), table[:, 6:7]
    return at_least_float32(torch.cat([
        center[:, :2], sizes[:, :2], center[:, 2:], sizes[:, 2:], yaw.sin(), yaw.cos(),
        table[:, 7:9]], -1))


def decode_codes(codes: Tensor) -> LiDARInstance3DBoxes:
    """Boxes of codes, the inverse of :func:`encode_boxes`.

    Args:
        codes: (M, 10) in m and m/s.

    Returns:
        M boxes with 9 columns.
    """
    cx, cy, dx, dy, cz, dz, sin, cos, vx, vy = codes.unbind(-1)
    table = torch.stack([cx, cy, cz, dx.exp(), dy.exp(), dz.exp(), torch.atan2(sin, cos), vx, vy],
                        -1)
    return LiDARInstance3DBoxes(table, box_dim=9, origin=_GRAVITY)


def refer_codes(raw_codes: Tensor, references: Tensor, pc_range: Sequence[float]) -> Tensor:
    """Codes in metres of what a branch gives.

    Args:
        raw_codes: (..., 10), the center as logits relative to the reference.
        references: (..., 3), (x, y, z) in 0..1 of the range.
        pc_range: Minimum and maximum (x, y, z, x, y, z) in m.

    Returns:
        (..., 10).
    """
    low = raw_codes.new_tensor(pc_range[:3])
    size = raw_codes.new_tensor(pc_range[3:]) - low
    center = torch.cat([raw_codes[..., :2], raw_codes[..., 4:5]], -1)
    center = (center + inverse_sigmoid(references)).sigmoid() * size + low
    return torch.cat([center[..., :2], raw_codes[..., 2:4], center[..., 2:], raw_codes[..., 5:]],
                     -1)


class BoxSelector:
    """The best boxes of a sample, without suppression of overlapping ones.

    Args:
        post_center_range: Minimum and maximum (x, y, z, x, y, z) in m of the centers of gravity
            of the boxes that are kept.
        max_num: Boxes of a sample, before those out of range are dropped.
    """

    def __init__(self, post_center_range: Sequence[float], max_num: int = 300) -> None:
        self.post_center_range = tuple(post_center_range)
        self.max_num = max_num

    def __call__(self, logits: Tensor, codes: Tensor, valid: Tensor | None = None) -> InstanceData:
        """Select.

        Args:
            logits: (Q, classes); a query may be selected for several classes.
            codes: (Q, 10) in m and m/s.
            valid: (Q,) bool; the others are never selected.

        Returns:
            ``bboxes_3d``, ``scores_3d`` and ``labels_3d``, best first.
        """
        scores = at_least_float32(logits).sigmoid()
        if valid is not None:
            scores = scores[valid]
            codes = codes[valid]
        scores, index = scores.flatten().topk(min(self.max_num, scores.numel()))
        classes = logits.shape[-1]
        codes = codes[index // classes]
        center = torch.cat([codes[:, :2], codes[:, 4:5]], -1)
        low, high = center.new_tensor(self.post_center_range).view(2, 3)
        kept = ((center >= low) & (center <= high)).all(-1)
        return InstanceData(bboxes_3d=decode_codes(codes[kept]), scores_3d=scores[kept],
                            labels_3d=(index % classes)[kept])
