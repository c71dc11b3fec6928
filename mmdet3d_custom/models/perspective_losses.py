"""Losses of the perspective head, one value per positive location.

All keep gradients finite at the target. Sums over no positive location are zero and still reach
every parameter, hence nothing here asks how many there are.
Source: DD3D (arXiv:2108.06417), section 3.3, FCOS (arXiv:1904.01355), and the release of
BEVFormer v2, which differs from the papers where it is said.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet3d_custom.models.perspective_geometry import CameraBoxes

# Names of the losses -> what of the box is predicted in them.
DISENTANGLED = {'quat': 'rotations', 'proj_ctr': 'projections', 'depth': 'depths', 'size': 'sizes'}


def giou_loss(sides: Tensor, targets: Tensor) -> Tensor:
    """1 - GIoU (P,) of boxes around one location, given by their sides (P, 4) >= 0.

    As published, 1 pixel is added to both areas of the IoU term, but not to those of the hull.
    """
    area = _area(sides)
    target_area = _area(targets)
    overlap = _area(torch.minimum(sides, targets))
    hull = _area(torch.maximum(sides, targets))
    union = area + target_area - overlap
    return 1 - (overlap + 1) / (union + 1) + (hull - union) / hull


def jumping_smooth_l1(error: Tensor, beta: float) -> Tensor:
    """The published smooth L1 of 3-D corners, elementwise.

    Half the square below ``beta``, not divided by it, and ``|error| - beta / 2`` from there on, so
    it jumps at ``beta``.
    """
    size = error.abs()
    return torch.where(size < beta, 0.5 * size**2, size - 0.5 * beta)


def disentangled_losses(boxes: CameraBoxes, targets: CameraBoxes,
                        beta: float) -> dict[str, Tensor]:
    """Errors of the corners when one component is predicted and the others are true.

    Args:
        boxes: P predicted boxes.
        targets: P true ones.
        beta: Of the smooth L1, in m.

    Returns:
        (P,) for each of the names of ``DISENTANGLED``: the mean over 24 coordinates.
    """
    corners = targets.corners
    losses = {}
    for name, field in DISENTANGLED.items():
        mixed = targets._replace(**{field: getattr(boxes, field)}).corners
        losses[name] = jumping_smooth_l1(mixed - corners, beta).mean((1, 2))
    return losses


def confidence_targets(boxes: CameraBoxes, targets: CameraBoxes, temperature: float) -> Tensor:
    """(P,) in 0..1 without gradient: 1 for a perfect box, less with the mean error of corners."""
    error = (boxes.corners - targets.corners).detach().abs().mean((1, 2))
    return torch.exp(-error / temperature)


def attribute_loss(logits: Tensor, attributes: Tensor, ignored: int) -> Tensor:
    """Mean cross entropy, a scalar, over those of P rows whose attribute is not ``ignored``."""
    known = attributes != ignored
    losses = F.cross_entropy(logits[known], attributes[known], reduction='none')
    return losses.sum() / known.sum().clamp(min=1)


def speed_loss(speeds: Tensor, targets: Tensor, weights: Tensor, beta: float) -> Tensor:
    """Weighted sum, a scalar, of the smooth L1 over those of P rows whose true speed is known."""
    known = targets.isfinite()
    losses = F.smooth_l1_loss(speeds[known], targets[known], beta=beta, reduction='none')
    return (losses * weights[known]).sum()


def _area(sides: Tensor) -> Tensor:
    return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])
