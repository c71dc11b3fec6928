"""Which query answers for which object: a minimum-cost assignment, one to one.

Source: N. Carion et al., "End-to-End Object Detection with Transformers", arXiv:2005.12872; the
costs are those of BEVFormer v2's release.
"""
from __future__ import annotations

import numpy as np
import torch
from mmdet.models.task_modules.assigners import FocalLossCost
from mmdet3d.registry import TASK_UTILS
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mmdet3d_custom.models.bev_attention import at_least_float32

# Instead of costs that are not finite, which the solver refuses; above all that are.
_IMPOSSIBLE = 1e6


def smooth_l1_cost(codes: Tensor, targets: Tensor) -> Tensor:
    """Sum of smooth L1 distances (beta 1) of all entries.

    Args:
        codes: (..., Q, E).
        targets: (M, E).

    Returns:
        (..., Q, M).
    """
    distance = (codes[..., None, :] - targets).abs()
    return torch.where(distance < 1, 0.5 * distance * distance, distance - 0.5).sum(-1)


@TASK_UTILS.register_module()
class HungarianMatcher3D:
    """Assignment of objects to queries by class and box.

    Args:
        cls_weight: Factor on the focal cost.
        box_weight: Factor on the smooth L1 cost.
        code_entries: Entries of the code that count, from the first; velocity comes last.
    """

    def __init__(self, cls_weight: float = 2.0, box_weight: float = 0.75,
                 code_entries: int = 8) -> None:
        self.cls_cost = FocalLossCost(weight=cls_weight)
        self.box_weight = box_weight
        self.code_entries = code_entries

    @torch.no_grad()
    def __call__(self, logits: Tensor, codes: Tensor, labels: Tensor,
                 targets: Tensor) -> tuple[Tensor, Tensor]:
        """Match each group of queries with all objects.

        Args:
            logits: (groups, Q, classes).
            codes: (groups, Q, 10).
            labels: (M,) int64.
            targets: (M, 10); where an entry is not finite, the cost is high, not an error.

        Returns:
            Two int64 (groups, min(Q, M)): queries, ascending, and the objects that they answer
            for.
        """
        groups, queries = logits.shape[:2]
        count = min(queries, len(labels))
        pairs = np.zeros((2, groups, count), np.int64)
        if count:
            entries = self.code_entries
            cost = self.cls_cost(InstanceData(scores=at_least_float32(logits).flatten(0, 1)),
                                 InstanceData(labels=labels)).unflatten(0, (groups, queries))
            cost = cost + self.box_weight * smooth_l1_cost(
                at_least_float32(codes[..., :entries]), targets[:, :entries])
            cost = cost.nan_to_num(_IMPOSSIBLE, _IMPOSSIBLE, -_IMPOSSIBLE).cpu().numpy()
            for group in range(groups):
                pairs[:, group] = linear_sum_assignment(cost[group])
        index = torch.from_numpy(pairs).to(logits.device)
        return index[0], index[1]
