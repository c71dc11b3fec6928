"""Random samples of six cameras and several frames, for measuring speed without a data set."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import Box3DMode, LiDARInstance3DBoxes
from scipy.spatial.transform import Rotation

from mmdet3d_custom.datasets.info_file import CAMERAS
from mmdet3d_custom.models.bevformer_v2 import surround_cameras

BOXES = 30  # of a sample: nuScenes' mean is 35
SIZE = (4.0, 2.0, 1.6)  # length, width, height of each in m


@TRANSFORMS.register_module()
class SyntheticViews(BaseTransform):
    """What a pipeline has before it packs, made up from ``sample_idx``.

    The cameras look evenly around and stand still over the frames, all of which exist. Pictures
    are noise; boxes stand on the ground around the vehicle, where cameras see them. All frames but
    the current one have a token, as if they had been current before: a detector that caches
    features has as much to do with such a sample, seen again and again, as within a scene.

    Args:
        size: Height and width of the pictures.
        frames: Offsets of the frames, 0 among them.
        num_classes: Of the annotations; None makes none.
    """

    def __init__(self, size: tuple[int, int], frames: tuple[int, ...] = (0, ),
                 num_classes: int | None = None) -> None:
        self.size, self.frames, self.num_classes = tuple(size), tuple(frames), num_classes

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add all that ``PackTemporalInputs`` packs."""
        rng, count = np.random.default_rng(results['sample_idx']), len(self.frames)
        lidar2cam, cam2img = (part.double().numpy() for part in
                              surround_cameras(len(CAMERAS), *self.size))
        results |= dict(
            img=list(rng.integers(0, 256, (count * len(CAMERAS), *self.size, 3), dtype=np.uint8)),
            img_path=[''] * len(CAMERAS), img_shape=self.size, pad_shape=self.size,
            ori_shape=self.size, flip=False, frames=self.frames,
            frame_valid=np.ones(count, bool),
            frame_tokens=[f'{results["sample_idx"]} {frame}' if frame else ''
                          for frame in self.frames],
            frame_cam2img=np.broadcast_to(cam2img, (count, len(CAMERAS), 3, 3)),
            frame_lidar2cam=np.broadcast_to(lidar2cam, (count, *lidar2cam.shape)), bda=np.eye(3),
            token='', scene_token='', timestamp=0.0, box_type_3d=LiDARInstance3DBoxes,
            box_mode_3d=Box3DMode.LIDAR)
        if self.num_classes is not None:
            results |= _annotations(rng, self.size, lidar2cam, cam2img, self.num_classes)
        return results


def _annotations(rng: np.random.Generator, size: tuple[int, int], lidar2cam: np.ndarray,
                 cam2img: np.ndarray, classes: int) -> dict[str, Any]:
    """Boxes on the ground, and what the cameras see of them."""
    distances, bearings = rng.uniform(8, 45, BOXES), rng.uniform(0, 2 * np.pi, BOXES)
    bottoms = np.stack([distances * np.cos(bearings), distances * np.sin(bearings),
                        np.full(BOXES, -1.8)], 1)
    yaws, labels = rng.uniform(-np.pi, np.pi, BOXES), rng.integers(0, classes, BOXES)
    boxes = LiDARInstance3DBoxes(
        torch.from_numpy(np.column_stack([bottoms, np.tile(SIZE, (BOXES, 1)), yaws,
                                          np.zeros((BOXES, 2))])).float(), box_dim=9)
    turns = Rotation.from_euler('z', yaws[:, None]).as_matrix()
    centers = bottoms + [0, 0, SIZE[2] / 2]
    half = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, 8).T * SIZE / 2
    corners = centers[:, None] + half @ turns.transpose(0, 2, 1)
    height, width = size
    rows: dict[str, list[np.ndarray]] = {}
    for camera, move in enumerate(lidar2cam):
        points = corners @ move[:3, :3].T + move[:3, 3]
        pixels = points @ cam2img.T
        pixels = pixels[..., :2] / np.maximum(pixels[..., 2:], 1e-3)
        low, high = (np.clip(edge, 0, (width, height)) for edge in (pixels.min(1), pixels.max(1)))
        seen = (points[..., 2] > 1).all(1) & (high - low > 2).all(1)
        count = int(seen.sum())
        quaternions = Rotation.from_matrix(move[:3, :3] @ turns).as_quat()[seen]
        for name, values in dict(
                cameras=np.full(count, camera), labels=labels[seen],
                bboxes=np.hstack([low, high])[seen],
                quaternions=quaternions[:, [3, 0, 1, 2]], attributes=np.zeros(count, np.int64),
                centers=centers[seen] @ move[:3, :3].T + move[:3, 3], speeds=np.zeros(count),
                sizes=np.tile([SIZE[1], SIZE[0], SIZE[2]], (count, 1))).items():
            rows.setdefault(name, []).append(values)
    return dict(gt_bboxes_3d=boxes, gt_labels_3d=labels,
                gt_perspective={name: np.concatenate(values) for name, values in rows.items()})
