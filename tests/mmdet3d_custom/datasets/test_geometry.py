"""Matrices and boxes agree with pictures, with the world, and with the official evaluation."""
from __future__ import annotations

import io
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet3d_custom')

from mmdet3d.evaluation import NuScenesMetric
from mmdet3d.structures import LiDARInstance3DBoxes

from mmdet3d_custom.datasets.info_file import CAMERAS
from mmdet3d_custom.datasets.nuscenes import CLASSES
from mmdet3d_custom.datasets.transforms import AugmentViews, LoadMultiFrameImages
from tests.nuscenes_sets import FRAMES, INFOS, read_set
from tools.mini_data.nuscenes_world import KINDS, World, make_world


def corrected(boxes: LiDARInstance3DBoxes, change: Callable[[torch.Tensor], None],
              ) -> LiDARInstance3DBoxes:
    """Boxes with their 9 columns changed in place: x y z_bottom l w h yaw vx vy."""
    boxes = boxes.clone()
    change(boxes.tensor)
    return boxes


def evaluate(root: Path, change: Callable[[torch.Tensor], None]) -> dict[str, float]:
    """The official metrics of the changed ground truth as predictions."""
    dataset = read_set(root, 'val', test_mode=True)
    metric = NuScenesMetric(str(root), str(root / INFOS.format('val')),
                            modality={'use_camera': True, 'use_lidar': False})
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        truth = info['eval_ann_info']
        labels = torch.from_numpy(truth['gt_labels_3d'])
        boxes = corrected(truth['gt_bboxes_3d'], change)
        metric.process({}, [{'sample_idx': info['sample_idx'], 'pred_instances': {},
                             'pred_instances_3d': {'bboxes_3d': boxes, 'labels_3d': labels,
                                                   'scores_3d': torch.ones(len(labels))}}])
    with redirect_stdout(io.StringIO()):
        found = metric.evaluate(len(dataset))
    return {name.rpartition('/')[2]: value for name, value in found.items()}


def nothing(boxes: torch.Tensor) -> None:
    pass


def negate_yaw(boxes: torch.Tensor) -> None:
    boxes[:, 6] *= -1


def old_yaw(boxes: torch.Tensor) -> None:
    boxes[:, 6] = -boxes[:, 6] - math.pi / 2


def old_boxes(boxes: torch.Tensor) -> None:
    old_yaw(boxes)
    boxes[:, [3, 4]] = boxes[:, [4, 3]]


def raise_half(boxes: torch.Tensor) -> None:
    boxes[:, 2] += boxes[:, 5] / 2


def stand_still(boxes: torch.Tensor) -> None:
    boxes[:, 7:] = 0


@pytest.mark.parametrize(('change', 'wrong'), [
    (nothing, {}), (raise_half, {}),  # the metric does not see heights
    (negate_yaw, {'mAOE': (1.0, 2.2)}), (old_yaw, {'mAOE': (1.0, 2.2)}),
    (old_boxes, {'mASE': (0.45, 0.8), 'mAOE': (1.0, 2.2)}),
    (stand_still, {'mAVE': (0.8, 2.5), 'mAAE': (0.2, 0.6)})])
def test_oracle(nuscenes_root: Path, change: Callable, wrong: dict[str, tuple[float, float]],
                ) -> None:
    found = evaluate(nuscenes_root, change)
    assert found['mAP'] == pytest.approx(1, abs=1e-6)
    scores = []
    for name in ('mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE'):
        low, high = wrong.get(name, (0, 2e-4))
        assert low <= found[name] <= high, name
        scores.append(1 - min(found[name], 1))
    assert found['NDS'] == pytest.approx(0.5 + sum(scores) / 10, abs=1e-4)
    assert (found['NDS'] > 0.9999) == (not wrong)


def test_oracle_is_whole_with_a_tilted_lidar(tilted_root: Path) -> None:
    found = evaluate(tilted_root, nothing)
    assert found['mAP'] == pytest.approx(1, abs=1e-6)
    assert found['NDS'] > 0.995  # boxes of the info file have yaw alone


def world_of(info: dict[str, Any], seed: int = 0, tilted: bool = False) -> tuple[World, float]:
    """The world of a sample and the time of its key frame."""
    for split in ('train', 'val'):
        for scene in (0, 1):
            world = make_world(seed, split, scene, tilted)
            if world.name == info['scene_name']:
                return world, world.seconds(world.timestamp(info['frame_idx']))
    raise AssertionError(info['scene_name'])


def projected(matrix: np.ndarray, point: np.ndarray) -> np.ndarray:
    """x, y in pixels and depth in m."""
    x, y, depth = (matrix @ [*point, 1])[:3]
    return np.array([x / depth, y / depth, depth])


def hides(world: World, time: float, eye: np.ndarray, target: int) -> bool:
    """Whether a box lies between an eye and the center of another one, or meets it closely."""
    center = world.things[target].pose(time)[:3, 3]
    for number, thing in enumerate(world.things):
        to = thing.pose(time)
        start, end = ((point - to[:3, 3]) @ to[:3, :3] for point in (eye, center))
        half = np.array([thing.size[1], thing.size[0], thing.size[2]]) / 2 + 0.1
        with np.errstate(divide='ignore'):
            sides = np.sort([(-half - start) / (end - start), (half - start) / (end - start)], 0)
        if number != target and max(sides[0].max(), 0) < min(sides[1].min(), 1):
            return True
    return False


def hue(colour: np.ndarray) -> float:
    """Angle of a colour around grey, in degrees; the mean of some pixels."""
    red, green, blue = colour
    return math.degrees(math.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue))


@pytest.mark.parametrize('heights', [(900, ), (160, )])
def test_projected_centers_have_the_colour_of_their_class(nuscenes_root: Path,
                                                          heights: tuple[int]) -> None:
    whole = heights == (900, )
    views = AugmentViews(heights, (0, 0, 1600, 900) if whole else (0, 260, 1600, 900))
    dataset, seen = read_set(nuscenes_root, frames=(-1, 0)), dict.fromkeys(CAMERAS, 0)
    of_history = 0
    for index in range(len(dataset)):
        results = views.transform(LoadMultiFrameImages().transform(dataset.collect_frames(index)))
        world, now = world_of(results)
        to_lidar = np.linalg.inv(results['lidar2global'])
        for frame, offset in enumerate(results['frames']):
            if not results['frame_valid'][frame]:
                continue
            time = now + offset * 0.5
            for number, thing in enumerate(world.things):
                if offset and thing.speed:
                    continue
                center = thing.pose(time)
                point = to_lidar @ center[:, 3]
                for camera, name in enumerate(CAMERAS):
                    matrix = np.eye(4)
                    matrix[:3, :3] = results['frame_cam2img'][frame, camera]
                    matrix = matrix @ results['frame_lidar2cam'][frame, camera]
                    x, y, depth = projected(matrix, point[:3])
                    height, width = results['img_shape']
                    if not (depth > 1 and 3 < x < width - 4 and 3 < y < height - 4):
                        continue
                    eye = world.sensor_to_world(results['frame_idx'] + offset, name)[:3, 3]
                    if hides(world, time, eye, number) or depth > 35 or \
                            not whole and depth * 3 > 35 * min(thing.size):
                        continue
                    picture = results['img'][frame * 6 + camera][..., ::-1]
                    patch = picture[round(y) - 1:round(y) + 2, round(x) - 1:round(x) + 2]
                    colour = patch.mean((0, 1))
                    gap = hue(colour) - hue(np.array(KINDS[thing.name].colour))
                    assert np.ptp(colour) > 60, 'sky and ground are greyer'
                    assert abs((gap + 180) % 360 - 180) < 14, (name, thing, offset)
                    seen[name] += 1
                    of_history += bool(offset)
    assert min(seen.values()) >= 2 and sum(seen.values()) > 30 and of_history > 5


@pytest.mark.parametrize('tilted', [False, True])
def test_static_points_stay_within_a_millimetre(nuscenes_root: Path, tilted_root: Path,
                                                tilted: bool) -> None:
    dataset = read_set(tilted_root if tilted else nuscenes_root, frames=(-2, -1, 0, 1, 2))
    worst, compared = 0.0, 0
    for index in range(len(dataset)):
        results = dataset.collect_frames(index)
        world, now = world_of(results, int(tilted), tilted)
        to_lidar = np.linalg.inv(world.sensor_to_world(results['frame_idx'], 'LIDAR_TOP'))
        for frame, offset in enumerate(results['frames']):
            for thing in world.things:
                if thing.speed or not results['frame_valid'][frame]:
                    continue
                center = thing.pose(now)[:, 3]
                for camera, name in enumerate(CAMERAS):
                    got = results['frame_lidar2cam'][frame, camera] @ to_lidar @ center
                    to_world = world.sensor_to_world(results['frame_idx'] + offset, name)
                    worst = max(worst, np.abs(got - np.linalg.inv(to_world) @ center).max())
                    compared += 1
    assert compared > 500
    assert worst < 1e-3


def test_history_with_yaw_alone_would_be_wrong(tilted_root: Path) -> None:
    """The tilted set tells whether whole rotations are used."""
    dataset = read_set(tilted_root, frames=(-1, 0))
    results = dataset.collect_frames(1)
    move = np.linalg.inv(results['frame_lidar2cam'][1, 0]) @ results['frame_lidar2cam'][0, 0]
    assert np.abs(move[2, :2]).max() > 5e-3


def test_boxes_are_those_of_the_world(nuscenes_root: Path) -> None:
    dataset = read_set(nuscenes_root, 'val')
    assert len(dataset) == 2 * FRAMES
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        world, now = world_of(info)
        to_lidar = np.linalg.inv(info['lidar2global'])
        wanted = sorted([CLASSES.index(thing.name), *(to_lidar @ thing.pose(now)[:, 3])[:3],
                         *np.array(thing.size)[[1, 0, 2]]]
                        for thing, count in zip(world.things, [1] * 18 + [0], strict=True) if count)
        truth = info['ann_info']
        got = sorted([label, *center, *size] for label, center, size in zip(
            truth['gt_labels_3d'].tolist(), truth['gt_bboxes_3d'].gravity_center.tolist(),
            truth['gt_bboxes_3d'].dims.tolist(), strict=True))
        assert np.allclose(got, wanted, atol=1e-4)
