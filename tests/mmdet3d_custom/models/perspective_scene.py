"""Cameras, boxes and samples for the tests of the perspective head, in plain NumPy."""
from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

import mmdet3d_custom  # noqa: F401

# isort: split
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import InstanceData

CLASSES = ('car', 'pedestrian', 'barrier')
SIZES = np.array([[1.9, 4.5, 1.6], [0.7, 0.75, 1.8], [2.2, 0.5, 1.0]])  # width, length, height
PICTURE = (96, 160)  # height, width
INTRINSICS = np.array([[120., 0, 83], [0, 110, 45], [0, 0, 1]])
# From LiDAR axes (x right, y forward, z up) to camera axes (x right, y down, z forward).
FORWARD = np.array([[1., 0, 0], [0, 0, -1], [0, 1, 0]])


def quaternion(rotation: Rotation) -> np.ndarray:
    """w x y z."""
    return rotation.as_quat()[..., [3, 0, 1, 2]]


def corners(rotation: np.ndarray, center: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(8, 3), written out one by one; ``size`` is width, length, height."""
    width, length, height = size
    return np.array([rotation @ np.array([x * length / 2, y * width / 2, z * height / 2]) + center
                     for x in (1, -1) for y in (1, -1) for z in (1, -1)])


def ray_frame(pixel: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Rotation from the frame of a ray to the camera, by Gram and Schmidt."""
    z = np.linalg.inv(intrinsics) @ np.array([*pixel, 1])
    z = z / np.linalg.norm(z)
    y = np.array([0, 1, 0]) - z[1] * z
    y = y / np.linalg.norm(y)
    return np.stack([np.cross(y, z), y, z], 1)


def lidar2cam(direction: float, tilt: tuple[float, float] = (0, 0)) -> np.ndarray:
    """(4, 4) of a camera that looks ``direction`` degrees to the left of a LiDAR with this tilt."""
    matrix = np.eye(4)
    tilted = Rotation.from_euler('xy', tilt, degrees=True).as_matrix()
    turned = Rotation.from_euler('z', -direction, degrees=True).as_matrix()
    matrix[:3, :3] = FORWARD @ turned @ tilted
    matrix[:3, 3] = 0.1, 0.4, -0.3
    return matrix


def draw_boxes(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Annotations of ``count`` boxes that the camera sees, by field."""
    rows: dict[str, list] = {name: [] for name in ('bboxes', 'labels', 'quaternions', 'centers',
                                                   'sizes', 'attributes', 'speeds')}
    for _ in range(count):
        label = int(rng.integers(len(CLASSES)))
        depth = rng.uniform(6, 20)
        pixel = rng.uniform((20, 20), (140, 76))
        center = np.linalg.inv(INTRINSICS) @ np.array([*pixel, 1]) * depth
        size = SIZES[label] * rng.uniform(0.8, 1.2, 3)
        rotation = Rotation.random(random_state=int(rng.integers(1 << 30)))
        seen = corners(rotation.as_matrix(), center, size) @ INTRINSICS.T
        flat = seen[:, :2] / seen[:, 2:]
        low, high = flat.min(0).clip(0), np.minimum(flat.max(0), PICTURE[::-1])
        for name, value in (('bboxes', [*low, *high]), ('labels', label),
                            ('quaternions', quaternion(rotation)), ('centers', center),
                            ('sizes', size), ('attributes', int(rng.integers(4))),
                            ('speeds', rng.uniform(0, 3))):
            rows[name].append(value)
    return {name: np.array(values) for name, values in rows.items()}


def make_sample(seed: int, counts: tuple[int, ...] = (3, 0, 2)) -> Det3DDataSample:
    """A sample with ``counts`` boxes in its cameras."""
    rng = np.random.default_rng(seed)
    sample = Det3DDataSample(metainfo=dict(
        cam2img=np.stack([INTRINSICS] * len(counts)), img_shape=PICTURE,
        lidar2cam=np.stack([lidar2cam(55 * camera, (1.4, -0.8))
                            for camera in range(len(counts))])))
    drawn = [draw_boxes(rng, count) for count in counts]
    widths = dict(bboxes=4, quaternions=4, centers=3, sizes=3)
    whole = ('labels', 'attributes')
    found = InstanceData(cameras=torch.tensor(
        [camera for camera, count in enumerate(counts) for _ in range(count)], dtype=torch.long))
    for name in drawn[0]:
        values = np.concatenate([part[name].reshape(-1, *([widths[name]] if name in widths else []))
                                 for part in drawn])
        found[name] = torch.tensor(values, dtype=torch.long if name in whole else torch.float32)
    sample.gt_instances_perspective = found
    return sample
