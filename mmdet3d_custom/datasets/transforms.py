"""Transforms of samples of several frames and six cameras.

The pipeline of the published trainings::

    dict(type='LoadMultiFrameImages'),
    dict(type='DistortViews', brightness_delta=32, contrast_range=(0.5, 1.5),
         saturation_range=(0.5, 1.5), hue_delta=18),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='AugmentBEV', rotation=(-22.5, 22.5), scale=(0.95, 1.05), flip_x=0.5, flip_y=0.5),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes=classes),
    dict(type='AugmentViews', crop=(0, 260, 1600, 900), flip=0.5,
         heights=(512, 544, 576, 608, 640, 672, 704, 736, 768)),
    dict(type='PerspectiveTargets'),
    dict(type='PackTemporalInputs')

Tests load, crop (``heights=(640, )``, no flip) and pack. All frames and cameras share one draw of
crop, size, flip and BEV augmentation; colours are distorted picture by picture. Pictures stay
uint8 BGR; the data preprocessor makes them float and normalises them.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.datasets.transforms import PhotoMetricDistortion3D
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import Det3DDataSample
from mmengine import fileio
from mmengine.structures import InstanceData

from mmdcn.errors import SampleError
from mmdet3d_custom.datasets.info_file import CAMERAS


@TRANSFORMS.register_module()
class LoadMultiFrameImages(BaseTransform):
    """Read the pictures of all frames: ``img``, a list of T*6 arrays (H, W, 3) uint8 BGR.

    Frames that the scene does not have are black.

    Args:
        backend_args: Of mmengine's file client.

    Raises:
        SampleError: A picture is missing or damaged, or has another size than the first.
    """

    def __init__(self, backend_args: dict[str, Any] | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img``, ``img_path`` (of the current frame) and ``ori_shape``."""
        read = [None if paths is None else [self._read(path) for path in paths]
                for paths in results['frame_paths']]
        current = results['frames'].index(0)
        shape = read[current][0].shape
        for paths, images in zip(results['frame_paths'], read, strict=True):
            for path, image in zip(paths or (), images or (), strict=True):
                if image.shape != shape:
                    raise SampleError(f'picture {path}', f'got {image.shape[1]}x{image.shape[0]}',
                                      f'{shape[1]}x{shape[0]}, as the first picture of its sample')
        black = np.zeros(shape, np.uint8)
        results['img'] = [image for images in read for image in images or [black] * len(CAMERAS)]
        results['img_path'] = results['frame_paths'][current]
        results['ori_shape'] = results['img_shape'] = shape[:2]
        return results

    def _read(self, path: str) -> np.ndarray:
        try:
            image = mmcv.imfrombytes(fileio.get(path, backend_args=self.backend_args))
        except OSError as error:
            raise SampleError(f'picture {path}', error.strerror or str(error)) from error
        if image is None:
            raise SampleError(f'picture {path}', 'it cannot be decoded')
        return image


@TRANSFORMS.register_module()
class DistortViews(BaseTransform):
    """mmdet3d's photometric distortion, drawn anew for each picture and clipped to 0..255.

    The released code turns values out of this range into others of it.

    Args:
        kwargs: As ``PhotoMetricDistortion3D``.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.distortion = PhotoMetricDistortion3D(**kwargs)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change ``img``; the pictures of absent frames stay black."""
        valid = np.repeat(results['frame_valid'], len(CAMERAS))
        results['img'] = [self._distort(image) if own else image
                          for image, own in zip(results['img'], valid, strict=True)]
        return results

    def _distort(self, image: np.ndarray) -> np.ndarray:
        values = self.distortion.transform({'img': image})['img']
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@TRANSFORMS.register_module()
class AugmentViews(BaseTransform):
    """Crop, resize, pad and then mirror all pictures alike.

    Crop and resize change ``frame_cam2img``. Pictures are padded on the right and below, and
    mirrored with the padding, so that mirrored features of ``pad_shape`` have their content where
    that of the pictures is; boxes and matrices stay those of the picture that is not mirrored.

    Args:
        heights: Heights after resizing, one of which is drawn; the width follows.
        crop: Part of the picture that is kept, x1 y1 x2 y2 in pixels.
        flip: Probability of mirroring.
        pad_divisor: Padded sizes are multiples of it.
        pad_value: Blue, green and red of the padding; the mean that the data preprocessor subtracts
            makes it nothing.

    Raises:
        ValueError: An argument is not valid.
        SampleError: The crop is not within the pictures.
    """

    def __init__(self, heights: Sequence[int],
                 crop: tuple[int, int, int, int] = (0, 260, 1600, 900), flip: float = 0.0,
                 pad_divisor: int = 32, pad_value: Sequence[float] = (0, 0, 0)) -> None:
        left, upper, right, lower = crop
        if not (0 <= left < right and 0 <= upper < lower):
            raise ValueError(f'crop is not valid: got {tuple(crop)}, expected x1 y1 x2 y2 with '
                             '0 <= x1 < x2 and 0 <= y1 < y2')
        if not len(heights) or min(heights) < 1:
            raise ValueError(f'heights is not valid: got {list(heights)}, expected at least one '
                             'positive height')
        self.heights = tuple(int(height) for height in heights)
        self.crop, self.pad_divisor = tuple(crop), pad_divisor
        self.flip = _probability('flip', flip)
        self.pad_value = np.clip(np.rint(pad_value), 0, 255).astype(np.uint8)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change ``img``, ``img_shape``, ``frame_cam2img``; add ``pad_shape``, ``flip``, ``views``.

        ``views`` is the map of pixels: subtract ``offset`` (x, y), then multiply by ``scale``.
        """
        left, upper, right, lower = self.crop
        if results['img_shape'][0] < lower or results['img_shape'][1] < right:
            size = f'{results["img_shape"][1]}x{results["img_shape"][0]}'
            raise SampleError(f'picture {results["img_path"][0]}', f'got {size}',
                              f'at least {right}x{lower}, as AugmentViews crops {self.crop}')
        height = int(np.random.choice(self.heights))
        width = max(1, round((right - left) * height / (lower - upper)))
        mirrored = bool(np.random.uniform() < self.flip)
        scale = np.array([width / (right - left), height / (lower - upper)])
        padded = tuple(math.ceil(side / self.pad_divisor) * self.pad_divisor
                       for side in (height, width))
        images = []
        for image in results['img']:
            canvas = np.empty((*padded, 3), np.uint8)
            canvas[:] = self.pad_value
            canvas[:height, :width] = mmcv.imresize(image[upper:lower, left:right],
                                                    (width, height))
            images.append(canvas[:, ::-1] if mirrored else canvas)
        change = np.array([[scale[0], 0, -scale[0] * left], [0, scale[1], -scale[1] * upper],
                           [0, 0, 1]])
        results.update(img=images, frame_cam2img=change @ results['frame_cam2img'],
                       img_shape=(height, width), pad_shape=padded, flip=mirrored,
                       views={'offset': np.array([left, upper], float), 'scale': scale})
        return results


@TRANSFORMS.register_module()
class AugmentBEV(BaseTransform):
    """Turn, scale and mirror the boxes about the LiDAR; the matrix ``bda`` does the same to points.

    ``bda = diag(fx, fy, 1) @ s R(a)``. Pictures and their matrices stay as they are: the model
    moves its BEV maps by ``bda``.

    Args:
        rotation: Range of the angle in degrees, counter-clockwise.
        scale: Range of the factor.
        flip_x: Probability of mirroring x.
        flip_y: Probability of mirroring y.

    Raises:
        ValueError: An argument is not valid.
    """

    def __init__(self, rotation: tuple[float, float] = (-22.5, 22.5),
                 scale: tuple[float, float] = (0.95, 1.05), flip_x: float = 0.5,
                 flip_y: float = 0.5) -> None:
        for name, value in (('rotation', rotation), ('scale', scale)):
            if len(value) != 2 or value[0] > value[1]:
                raise ValueError(f'{name} is not valid: got {tuple(value)}, expected (low, high)')
        if scale[0] <= 0:
            raise ValueError(f'scale is not valid: got {tuple(scale)}, expected positive factors')
        self.rotation, self.scale = tuple(rotation), tuple(scale)
        self.flip_x, self.flip_y = _probability('flip_x', flip_x), _probability('flip_y', flip_y)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change ``gt_bboxes_3d`` and ``bda``."""
        angle = math.radians(np.random.uniform(*self.rotation))
        factor = float(np.random.uniform(*self.scale))
        mirror_x = bool(np.random.uniform() < self.flip_x)
        mirror_y = bool(np.random.uniform() < self.flip_y)
        boxes = results['gt_bboxes_3d']
        boxes.rotate(angle)
        boxes.scale(factor)
        if mirror_x:
            boxes.flip('vertical')
        if mirror_y:
            boxes.flip('horizontal')
        turn = np.array([[math.cos(angle), -math.sin(angle), 0],
                         [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
        mirror = np.diag([-1.0 if mirror_x else 1.0, -1.0 if mirror_y else 1.0, 1.0])
        results['bda'] = mirror @ (factor * turn) @ results['bda']
        return results


@TRANSFORMS.register_module()
class PerspectiveTargets(BaseTransform):
    """Boxes for the perspective head: ``gt_perspective``, in the picture after crop and resize.

    Comes after ``AugmentViews``.

    Args:
        min_points: Least number of LiDAR and radar points within a box.
        min_visibility: Least share of the projected box within the whole picture.
    """

    def __init__(self, min_points: int = 3, min_visibility: float = 0.2) -> None:
        self.min_points, self.min_visibility = min_points, min_visibility

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``gt_perspective``, arrays of the names of the contract."""
        boxes, views = results['perspective'], results['views']
        height, width = results['img_shape']
        corners = (boxes['bboxes'].reshape(-1, 2, 2) - views['offset']) * views['scale']
        corners = np.clip(corners, 0, (width, height))
        kept = ((corners[:, 1] > corners[:, 0]).all(-1) & (boxes['centers'][:, 2] > 0)
                & (boxes['num_pts'] >= self.min_points)
                & (boxes['visibility'] >= self.min_visibility))
        names = ('cameras', 'labels', 'quaternions', 'centers', 'sizes', 'attributes', 'speeds')
        results['gt_perspective'] = {name: boxes[name][kept] for name in names} | {
            'bboxes': corners[kept].reshape(-1, 4)}
        return results


@TRANSFORMS.register_module()
class PackTemporalInputs(BaseTransform):
    """Pack pictures, metainfo and annotations as docs/bevformer_v2.md describes them."""

    META = ('frames', 'frame_valid', 'frame_tokens', 'flip', 'bda', 'img_shape', 'pad_shape',
            'ori_shape', 'img_path', 'sample_idx', 'token', 'scene_token', 'timestamp',
            'box_type_3d', 'box_mode_3d')

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """The ``inputs`` (``img`` of shape (T*6, 3, H, W) uint8) and the ``data_samples``."""
        intrinsic, lidar2cam = results['frame_cam2img'], results['frame_lidar2cam']
        padded = np.broadcast_to(np.eye(4), (*intrinsic.shape[:2], 4, 4)).copy()
        padded[..., :3, :3] = intrinsic
        current = results['frames'].index(0)
        sample = Det3DDataSample(metainfo={key: results[key] for key in self.META} | {
            'lidar2img': padded @ lidar2cam, 'cam2img': intrinsic[current],
            'lidar2cam': lidar2cam[current]})
        if 'gt_bboxes_3d' in results:
            sample.gt_instances_3d = InstanceData(
                bboxes_3d=results['gt_bboxes_3d'],
                labels_3d=torch.from_numpy(np.asarray(results['gt_labels_3d'], np.int64)))
        if 'gt_perspective' in results:
            sample.gt_instances_perspective = InstanceData(**{
                name: torch.from_numpy(value if value.dtype == np.int64
                                       else value.astype(np.float32))
                for name, value in results['gt_perspective'].items()})
        sample.eval_ann_info = results.get('eval_ann_info')
        pictures = np.stack(results['img']).transpose(0, 3, 1, 2)
        return {'inputs': {'img': torch.from_numpy(np.ascontiguousarray(pictures))},
                'data_samples': sample}


def _probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f'{name} is not valid: got {value}, expected a number within 0..1')
    return value
