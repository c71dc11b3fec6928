"""What each location of the perspective head should predict (FCOS).

Locations of a level are at multiples of its stride, without an offset of half a stride, as
published.
Source: FCOS (arXiv:1904.01355), with center sampling, and the release of BEVFormer v2.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

IGNORED_ATTRIBUTE = 3
_FIELDS = {'cameras': (), 'bboxes': (4,), 'labels': (), 'quaternions': (4,), 'centers': (3,),
           'sizes': (3,), 'attributes': (), 'speeds': ()}


class Annotations(NamedTuple):
    """M annotations of the I pictures that take part in a step.

    Attributes:
        pictures: (I,) int64, which of the B * cameras pictures of the batch take part.
        inverse_intrinsics: (I, 3, 3) float32 of these.
        picture: (M,) int64, index into ``pictures``.
        bboxes: (M, 4) float32 x1 y1 x2 y2 in pixels.
        labels: (M,) int64.
        quaternions: (M, 4) float32 w x y z, egocentric.
        centers: (M, 3) float32, gravity centers in the camera frame in m.
        sizes: (M, 3) float32, width, length, height in m.
        attributes: (M,) int64, 3 is ignored.
        speeds: (M,) float32 in m/s, NaN where unknown.
    """

    pictures: Tensor
    inverse_intrinsics: Tensor
    picture: Tensor
    bboxes: Tensor
    labels: Tensor
    quaternions: Tensor
    centers: Tensor
    sizes: Tensor
    attributes: Tensor
    speeds: Tensor


def gather_annotations(batch_data_samples: Sequence[Any], num_cameras: int, num_classes: int,
                       device: torch.device) -> Annotations:
    """The pictures with an annotation, and their annotations.

    Where no picture has any, the first takes part alone: the layers must run on every process,
    or those that wait for it to average statistics and gradients would wait for ever.

    Args:
        batch_data_samples: B samples with ``gt_instances_perspective`` and ``cam2img``.
        num_cameras: Of a sample.
        num_classes: Labels are below it.
        device: Where the tensors are wanted.

    Raises:
        ValueError: A field is missing or has another shape, or a camera or label is out of range.
    """
    fields: dict[str, list[Tensor]] = {name: [] for name in _FIELDS}
    for index, sample in enumerate(batch_data_samples):
        found = sample.gt_instances_perspective
        for name, shape in _FIELDS.items():
            value = found.get(name)
            _check_field(name, value, (len(found), *shape))
            fields[name].append(value + index * num_cameras if name == 'cameras' else value)
        _check_range('cameras', found.cameras, num_cameras)
        _check_range('labels', found.labels, num_classes)
    values = {name: torch.cat(parts).to(device) for name, parts in fields.items()}
    values = {name: value.float() if value.is_floating_point() else value.long()
              for name, value in values.items()}
    pictures, picture = values.pop('cameras').unique(return_inverse=True)
    if not len(pictures):
        pictures = pictures.new_zeros(1)
    inverse = inverse_intrinsics([sample.metainfo for sample in batch_data_samples], device)
    return Annotations(pictures, inverse[pictures], picture, **values)


def inverse_intrinsics(batch_img_metas: Sequence[dict[str, Any]], device: torch.device) -> Tensor:
    """Inverse intrinsics (B * cameras, 3, 3) in float32, inverted in float64."""
    intrinsics = np.concatenate([np.asarray(meta['cam2img'], np.float64)[:, :3, :3]
                                 for meta in batch_img_metas])
    return torch.from_numpy(np.linalg.inv(intrinsics)).float().to(device)


def level_locations(shapes: Sequence[tuple[int, int]], strides: Sequence[int],
                    device: torch.device) -> list[Tensor]:
    """Locations (h * w, 2) of each level, x y in pixels, row by row.

    Args:
        shapes: (h, w) of each level.
        strides: In pixels.
        device: Where the tensors are wanted.
    """
    found = []
    for (height, width), stride in zip(shapes, strides, strict=True):
        y, x = torch.meshgrid(torch.arange(height, device=device),
                              torch.arange(width, device=device), indexing='ij')
        found.append(torch.stack([x, y], -1).flatten(0, 1).float() * stride)
    return found


def assign_locations(locations: Sequence[Tensor], strides: Sequence[int],
                     ranges: Sequence[tuple[float, float]], radius: float,
                     bboxes: Tensor) -> Tensor:
    """Which box each location of a picture stands for.

    A location stands for a box if it is strictly inside both the box and the square of ``radius``
    strides around its center, and the farthest side of the box is within the range of the level
    (the lower end excluded, the upper included). Of several boxes the smallest counts, of equally
    small ones the first.

    Args:
        locations: (R_l, 2) of each level, as :func:`level_locations` gives them.
        strides: Of each level.
        ranges: Least and greatest distance in pixels of each level.
        radius: In strides.
        bboxes: (M, 4) x1 y1 x2 y2 in pixels.

    Returns:
        (R,) int64 for all levels one after the other, -1 where there is none.
    """
    found = []
    areas = (bboxes[:, 2:] - bboxes[:, :2]).prod(1)
    for points, stride, (low, high) in zip(locations, strides, ranges, strict=True):
        if not len(bboxes):
            found.append(points.new_full((len(points),), -1, dtype=torch.long))
            continue
        sides = box_sides(points[:, None], bboxes)
        centers = (bboxes[:, :2] + bboxes[:, 2:]) / 2
        near = (points[:, None] - centers).abs().amax(-1) < radius * stride
        farthest = sides.amax(-1)
        fits = near & (sides.amin(-1) > 0) & (farthest > low) & (farthest <= high)
        area, index = torch.where(fits, areas, torch.inf).min(1)
        found.append(torch.where(area.isinf(), -1, index))
    return torch.cat(found)


def box_sides(points: Tensor, bboxes: Tensor) -> Tensor:
    """Distances (..., 4) from points (..., 2) to the left, top, right and bottom of boxes."""
    return torch.cat([points - bboxes[..., :2], bboxes[..., 2:] - points], -1)


def centerness(sides: Tensor) -> Tensor:
    """(P,) of distances (P, 4), all positive: 1 at the center, towards 0 at a side."""
    pairs = sides.unflatten(-1, (2, 2))
    return (pairs.amin(-2) / pairs.amax(-2)).prod(-1).sqrt()


def _check_field(name: str, value: object, shape: tuple[int, ...]) -> None:
    got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    if got != shape:
        raise ValueError(f'gt_instances_perspective.{name} is not valid: got {got}, expected a '
                         f'tensor of shape {shape}; pack perspective targets with the data set')


def _check_range(name: str, value: Tensor, count: int) -> None:
    if len(value) and not 0 <= value.min() <= value.max() < count:
        raise ValueError(f'gt_instances_perspective.{name} is not valid: got values from '
                         f'{value.min()} to {value.max()}, expected 0 to {count - 1}; compare the '
                         'classes and cameras of the data set with those of the head')
