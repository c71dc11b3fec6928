"""Predictions and ground truth of a sample in one picture: its six cameras and a bird's-eye view.

What is drawn are the pictures that the network saw, cropped and resized, with the matrices that
belong to them, so a wrong matrix shows at once.
"""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmdet3d.registry import HOOKS, VISUALIZERS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from mmengine.visualization import Visualizer
from torch import Tensor

from mmdcn.apis.drawing import write_image

# Where each camera of the contract's order stands in the picture: (row, column), seen from above.
PLACES = ((0, 1), (0, 2), (0, 0), (1, 1), (1, 0), (1, 2))
TRUTH = (255, 255, 255)
_NEAR = 0.1  # m; what is closer to the camera's plane is cut off
_GROUND = (38, 40, 46)
_LINES = (70, 74, 84)
_RING = 10  # m between two circles of the bird's-eye view
# Corners of mmdet3d's boxes 0..7; the first edges bound the front face, where the box looks.
_FRONT = ((4, 5), (5, 6), (6, 7), (7, 4))
_EDGES = (*_FRONT, (0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (1, 5), (2, 6), (3, 7))
_PALETTE = ((250, 170, 60), (60, 190, 250), (240, 90, 90), (90, 220, 120), (200, 120, 250),
            (250, 230, 80), (250, 130, 190), (255, 110, 30), (120, 150, 250), (80, 220, 210))


@VISUALIZERS.register_module()
class MultiViewVisualizer(Visualizer):
    """Draws samples of six cameras.

    Args:
        name: See mmengine's ``Visualizer``.
        extent: Half the width of the bird's-eye view in m.
        **kwargs: See mmengine's ``Visualizer``.
    """

    def __init__(self, name: str = 'visualizer', extent: float = 55.0, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.extent = extent

    def draw_views(self, images: Tensor, sample: BaseDataElement, score_thr: float,
                   with_truth: bool) -> np.ndarray:
        """The picture of a sample.

        Args:
            images: (T*6, 3, H, W) uint8 BGR as the pipeline packs them, in each frame FRONT,
                FRONT_RIGHT, FRONT_LEFT, BACK, BACK_LEFT, BACK_RIGHT.
            sample: Data sample with ``pred_instances_3d`` and the metainfo of the pipeline, and
                with ``eval_ann_info`` or ``gt_instances_3d`` if the ground truth is to be drawn.
            score_thr: Objects below this score are not drawn.
            with_truth: Draw the ground truth, too, in white.

        Returns:
            (height, width, 3) RGB uint8: three views above three, the bird's-eye view on their
            right, x to the right and y up.

        Raises:
            ValueError: There are not six pictures a frame.
        """
        views = current_views(images, sample)
        height, width = views[0].shape[:2]
        lidar2img = current_matrices(sample)
        sheet = np.zeros((2 * height, 3 * width, 3), np.uint8)
        objects = list(self._objects(sample, score_thr, with_truth))
        thickness = max(1, round(width / 500))
        for camera, (row, column) in enumerate(PLACES):
            view = views[camera]
            for corners, _, color in objects:
                draw_box(view, corners, lidar2img[camera], color, thickness)
            sheet[row * height:(row + 1) * height, column * width:(column + 1) * width] = view
        return np.concatenate([sheet, self._birds_eye(2 * height, objects, thickness)], 1)

    def _objects(self, sample: BaseDataElement, score_thr: float, with_truth: bool,
                 ) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[int, int, int]]]:
        """Corners (8, 3), bottom (4, 2) and colour of what is drawn, the truth first."""
        truth = _truth(sample) if with_truth else None
        if truth is not None:
            for corners, bottom in _shapes(truth):
                yield corners, bottom, TRUTH
        found: InstanceData = sample.pred_instances_3d
        found = found[found.scores_3d >= score_thr]
        for (corners, bottom), label in zip(
                _shapes(found.bboxes_3d), found.labels_3d.tolist(), strict=True):
            yield corners, bottom, _PALETTE[label % len(_PALETTE)]

    def _birds_eye(self, size: int, objects: Sequence[tuple[np.ndarray, np.ndarray, Any]],
                   thickness: int) -> np.ndarray:
        """A square picture of what lies around the vehicle."""
        picture = np.full((size, size, 3), _GROUND, np.uint8)
        scale, middle = size / 2 / self.extent, np.array([size / 2, size / 2])
        center = tuple(int(value) for value in middle)
        for radius in range(_RING, int(self.extent) + 1, _RING):
            cv2.circle(picture, center, round(radius * scale), _LINES, 1, cv2.LINE_AA)
        cv2.drawMarker(picture, center, _LINES, cv2.MARKER_TRIANGLE_UP, max(6, size // 40), 2)
        for _, bottom, color in objects:
            points = middle + bottom * (scale, -scale)
            front = points[:2].mean(0)
            for start, end in (*zip(points, np.roll(points, -1, 0), strict=True),
                               (points.mean(0), front)):
                cv2.line(picture, *_pixels(start, end), color, thickness, cv2.LINE_AA)
        return picture


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """Draws every tested sample: what a folder of pictures means for samples of six cameras.

    Args:
        out_dir: Folder of the pictures, ``SCENE_POSITION.jpg`` for each sample.
        score_thr: Objects below this score are not drawn.
    """

    def __init__(self, out_dir: str, score_thr: float = 0.3) -> None:
        self.out_dir = out_dir
        self.score_thr = score_thr

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                        outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Draw the outputs of one batch."""
        dataset = runner.test_dataloader.dataset
        for images, sample in zip(data_batch['inputs']['img'], outputs or [], strict=True):
            info = dataset.get_data_info(dataset.find_sample(sample.metainfo['token']))
            picture = runner.visualizer.draw_views(images, sample, self.score_thr,
                                                   with_truth=True)
            name = f'{info["scene_name"]}_{info["frame_idx"]:03d}.jpg'
            write_image(os.path.join(self.out_dir, name), picture[..., ::-1])


def current_views(images: Tensor, sample: BaseDataElement) -> list[np.ndarray]:
    """The pictures of the current frame as a pipeline packs them, without the padding.

    Args:
        images: (T*6, 3, H, W) uint8 BGR.
        sample: Data sample with ``frames``, ``img_shape`` and ``flip``.

    Returns:
        Six arrays (H0, W0, 3) RGB uint8, un-mirrored.

    Raises:
        ValueError: There are not six pictures a frame.
    """
    meta = sample.metainfo
    if len(images) != len(meta['frames']) * len(PLACES):
        raise ValueError(f'images is not valid: got {len(images)} pictures, expected '
                         f'{len(PLACES)} of each of the {len(meta["frames"])} frames')
    views = images.unflatten(0, (len(meta['frames']), -1))[list(meta['frames']).index(0)]
    views = views.flip(-1) if meta.get('flip', False) else views
    height, width = meta['img_shape'][:2]
    views = views[..., :height, :width].flip(1).permute(0, 2, 3, 1)
    return list(views.clone(memory_format=torch.contiguous_format).numpy())


def current_matrices(sample: BaseDataElement) -> np.ndarray:
    """``lidar2img`` (6, 4, 4) of the current frame of a sample."""
    frames = list(sample.metainfo['frames'])
    return np.asarray(sample.metainfo['lidar2img'], np.float64)[frames.index(0)]


def draw_box(view: np.ndarray, corners: np.ndarray, lidar2img: np.ndarray,
             color: tuple[int, int, int], thickness: int) -> None:
    """Draw the edges of a box into a picture, those of its front twice as thick.

    Args:
        view: (H, W, 3), changed in place.
        corners: (8, 3) in LiDAR, in m, in the order of mmdet3d's boxes.
        lidar2img: (4, 4).
        color: In the order of the picture's channels.
        thickness: Of the lines in pixels.
    """
    points = np.concatenate([corners, np.ones((8, 1))], 1) @ lidar2img[:3].T
    for edge in _EDGES:
        ends = _before_camera(*points[list(edge)])
        if ends is not None:
            pixels = [end[:2] / end[2] for end in ends]
            cv2.line(view, *_pixels(*pixels), color, thickness * (1 + (edge in _FRONT)),
                     cv2.LINE_AA)


def _before_camera(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The part of an edge, in homogeneous pixels, that lies before the camera; None for none."""
    if start[2] < _NEAR and end[2] < _NEAR:
        return None
    cut = [point if point[2] >= _NEAR else other + (point - other) * (
        (other[2] - _NEAR) / (other[2] - point[2]))
           for point, other in ((start, end), (end, start))]
    return cut[0], cut[1]


def _pixels(*points: np.ndarray) -> list[tuple[int, int]]:
    """Points as OpenCV wants them; far outside they are moved to where it can still count."""
    return [tuple(int(value) for value in np.clip(np.rint(point), -30000, 30000))
            for point in points]


def _truth(sample: BaseDataElement) -> LiDARInstance3DBoxes | None:
    """Boxes of the ground truth of a sample; None where it has none."""
    if len(sample.get('gt_instances_3d', ())):
        return sample.gt_instances_3d.bboxes_3d
    info = sample.get('eval_ann_info') or {}
    return info.get('gt_bboxes_3d')


def _shapes(boxes: LiDARInstance3DBoxes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Corners (8, 3) and bottom (4, 2), the front edge first, of each box."""
    for corners in boxes.corners.cpu().numpy():
        yield corners, corners[[4, 7, 3, 0], :2]
