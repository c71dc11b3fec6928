"""Boxes in camera frames: how the perspective head writes them, their corners, the way to LiDAR.

Camera axes: x right, y down, z forward. A box at rest looks along its own x: length on x, width on
y, height on z, as in nuScenes. Everything is differentiable and keeps the dtype of its input, which
the head gives in float32.
Source: DD3D (arXiv:2108.06417), section 3.2, and the release of BEVFormer v2.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_CORNER_SIGNS = tuple((x, y, z) for x in (1, -1) for y in (1, -1) for z in (1, -1))


class CameraBoxes(NamedTuple):
    """M boxes, each in the frame of its own camera.

    Attributes:
        rotations: (M, 3, 3), from the box to the camera (egocentric).
        projections: (M, 2), where the center of the box appears, x y in pixels.
        depths: (M,), z of the center in m.
        sizes: (M, 3), width, length, height in m.
        inverse_intrinsics: (M, 3, 3), from homogeneous pixels to rays.
    """

    rotations: Tensor
    projections: Tensor
    depths: Tensor
    sizes: Tensor
    inverse_intrinsics: Tensor

    @property
    def centers(self) -> Tensor:
        """Gravity centers (M, 3), x y z in m."""
        return pixel_rays(self.projections, self.inverse_intrinsics) * self.depths[:, None]

    @property
    def corners(self) -> Tensor:
        """(M, 8, 3), x y z in m."""
        signs = self.sizes.new_tensor(_CORNER_SIGNS) / 2
        local = signs * self.sizes[:, None, (1, 0, 2)]
        return self.centers[:, None] + local @ self.rotations.transpose(1, 2)


def camera_boxes(quaternions: Tensor, centers: Tensor, sizes: Tensor,
                 inverse_intrinsics: Tensor) -> CameraBoxes:
    """Annotated boxes as the head sees them.

    Args:
        quaternions: (M, 4) w x y z, egocentric.
        centers: (M, 3) gravity centers in m, z positive.
        sizes: (M, 3) width, length, height in m.
        inverse_intrinsics: (M, 3, 3).
    """
    # The intrinsics are inverted back, so that center and projection agree to rounding.
    pixels = torch.linalg.inv(inverse_intrinsics) @ centers[..., None]
    projections = pixels[:, :2, 0] / pixels[:, 2:, 0]
    return CameraBoxes(quaternion_to_matrix(quaternions), projections, centers[:, 2], sizes,
                       inverse_intrinsics)


def decode_boxes(quaternions: Tensor, offsets: Tensor, depths: Tensor, sizes: Tensor,
                 locations: Tensor, inverse_intrinsics: Tensor, canonical_sizes: Tensor,
                 depth_range: tuple[float, float], focal_factor: float) -> CameraBoxes:
    """Boxes from what the layers of the head say.

    Args:
        quaternions: (M, 4) w x y z of any length, allocentric: relative to the ray of the center.
        offsets: (M, 2) from the location to the projected center, in pixels.
        depths: (M,) in the units of a camera whose pixel is ``1 / focal_factor`` wide.
        sizes: (M, 3): 0 is the canonical size, and tanh keeps the factor between 0 and 2.
        locations: (M, 2) of the predictions, x y in pixels.
        inverse_intrinsics: (M, 3, 3) of the picture that the head saw.
        canonical_sizes: (M, 3) width, length, height in m of the predicted classes.
        depth_range: Least and greatest depth in m; no gradient beyond.
        focal_factor: The published 500.
    """
    projections = locations + offsets
    rotations = ray_frames(projections, inverse_intrinsics) @ quaternion_to_matrix(quaternions)
    depths = depths / (focal_factor * pixel_sizes(inverse_intrinsics))
    return CameraBoxes(rotations, projections, depths.clamp(*depth_range),
                       (sizes.tanh() + 1) * canonical_sizes, inverse_intrinsics)


def pixel_sizes(inverse_intrinsics: Tensor) -> Tensor:
    """Length (M,) of the diagonal of a pixel at depth 1: sqrt(1 / fx**2 + 1 / fy**2)."""
    return torch.hypot(inverse_intrinsics[:, 0, 0], inverse_intrinsics[:, 1, 1])


def pixel_rays(pixels: Tensor, inverse_intrinsics: Tensor) -> Tensor:
    """Points (M, 3) at depth 1 that appear at ``pixels`` (M, 2)."""
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)
    return (inverse_intrinsics @ homogeneous[..., None])[..., 0]


def ray_frames(pixels: Tensor, inverse_intrinsics: Tensor) -> Tensor:
    """Rotations (M, 3, 3) from the frame of the ray through a pixel to the camera.

    Its z is the ray, its y the camera's y made orthogonal to the ray. What looks the same from its
    ray has the same allocentric rotation wherever it is in the picture.
    """
    ray = torch.nn.functional.normalize(pixel_rays(pixels, inverse_intrinsics), dim=1)
    down = torch.zeros_like(ray)
    down[:, 1] = 1
    down = torch.nn.functional.normalize(down - ray[:, 1:2] * ray, dim=1)
    return torch.stack([torch.linalg.cross(down, ray), down, ray], -1)


def quaternion_to_matrix(quaternions: Tensor) -> Tensor:
    """Rotations (M, 3, 3) of quaternions (M, 4) w x y z, which need not have length 1."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def to_lidar(boxes: CameraBoxes, lidar2cam: Tensor, speeds: Tensor) -> Tensor:
    """Rows of LiDAR boxes (M, 9): x y z of the gravity center, length, width, height, yaw, vx, vy.

    Yaw is the direction of the box's x axis in the LiDAR's ground plane, and the velocity goes that
    way: what a LiDAR box cannot say (roll and pitch) is dropped.

    Args:
        boxes: M boxes.
        lidar2cam: (M, 4, 4), from LiDAR to the camera of each box.
        speeds: (M,) in m/s.
    """
    camera2lidar = torch.linalg.inv(lidar2cam.double()).to(boxes.depths.dtype)
    rotation, origin = camera2lidar[:, :3, :3], camera2lidar[:, :3, 3]
    centers = (rotation @ boxes.centers[..., None])[..., 0] + origin
    heading = (rotation @ boxes.rotations[..., :1])[..., 0]
    yaw = torch.atan2(heading[:, 1], heading[:, 0])
    velocity = speeds[:, None] * torch.stack([yaw.cos(), yaw.sin()], -1)
    return torch.cat([centers, boxes.sizes[:, (1, 0, 2)], yaw[:, None], velocity], 1)
