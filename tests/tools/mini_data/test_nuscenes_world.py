"""The synthetic world: rotations, motion, and what the official evaluation needs of it."""
from __future__ import annotations

import math

import numpy as np
import pytest

from tools.mini_data import nuscenes_world
from tools.mini_data.classes import NUSCENES_CLASSES
from tools.mini_data.nuscenes_world import (
    CAMERAS,
    FRAMES,
    INTERVAL,
    KINDS,
    LIDAR,
    SCENES,
    axis_rotation,
    intrinsics,
    make_world,
    quaternion,
    token,
)

WORLDS = [(seed, split, scene) for seed in (0, 1, 2) for split in SCENES
          for scene in range(len(SCENES[split]))]


@pytest.mark.parametrize(('axis', 'vector', 'wanted'), [
    ('x', (0, 1, 0), (0, 0, 1)), ('y', (0, 0, 1), (1, 0, 0)), ('z', (1, 0, 0), (0, 1, 0))])
def test_rotations_are_counter_clockwise(axis: str, vector: tuple, wanted: tuple) -> None:
    assert np.allclose(axis_rotation(axis, math.pi / 2) @ vector, wanted)


def rotated(q: list[float], vector: np.ndarray) -> np.ndarray:
    """A vector turned by a quaternion w x y z."""
    axis = np.array(q[1:])
    once = np.cross(axis, vector)
    return vector + 2 * (q[0] * once + np.cross(axis, once))


def test_quaternions() -> None:
    rng = np.random.default_rng(0)
    for angle in (0.0, 1.0, math.pi, -math.pi + 1e-9, 3.0):
        for axes in ('xyz', 'zxz', 'yx'):
            matrix = np.eye(3)
            for axis in axes:
                matrix = matrix @ axis_rotation(axis, angle)
            got = quaternion(matrix)
            assert np.linalg.norm(got) == pytest.approx(1) and got[0] >= 0
            vector = rng.normal(size=3)
            assert np.allclose(rotated(got, vector), matrix @ vector)


def test_tokens_are_names_of_their_own() -> None:
    assert token('a', 1) == token('a', 1) != token('a', 2)
    assert len(token('a')) == 32 and int(token('a'), 16)


@pytest.mark.parametrize(('seed', 'split', 'scene'), WORLDS)
def test_every_class_counts_in_the_evaluation(seed: int, split: str, scene: int) -> None:
    world = make_world(seed, split, scene)
    within = set()
    for thing in world.things:
        distances = [np.linalg.norm(thing.pose(time)[:2, 3] - world.ego(time)[:2, 3])
                     for time in (0.0, INTERVAL)]
        if not thing.without_points and min(distances) < 0.95 * KINDS[thing.name].reach:
            within.add(thing.name)
    assert within == set(NUSCENES_CLASSES)
    assert [thing.without_points for thing in world.things] == [False] * 18 + [True]


@pytest.mark.parametrize(('seed', 'split', 'scene'), WORLDS[:10])
def test_nothing_collides(seed: int, split: str, scene: int) -> None:
    world = make_world(seed, split, scene)
    for frame in range(FRAMES):
        places = np.array([thing.pose(frame * INTERVAL)[:2, 3] for thing in world.things])
        radii = np.array([thing.radius for thing in world.things])
        gaps = np.linalg.norm(places[:, None] - places, axis=-1) - radii[:, None] - radii
        assert (gaps[~np.eye(len(radii), dtype=bool)] > 0).all()
        assert (np.linalg.norm(places - world.ego(frame * INTERVAL)[:2, 3], axis=1)
                > radii + 3).all()


def test_boxes_move_as_they_look_and_as_fast_as_they_say() -> None:
    moving = 0
    for world in (make_world(*where) for where in WORLDS):
        for thing in world.things:
            step = (thing.pose(1.5) - thing.pose(0.5))[:3, 3]
            assert np.allclose(step, thing.speed * thing.pose(0)[:3, 0])
            assert thing.pose(2.0)[2, 3] == thing.size[2] / 2
            low, high = KINDS[thing.name].speeds or (0, 0)
            assert thing.speed == 0 or low <= thing.speed <= high
            moving += thing.speed > 0
    assert 150 < moving < 220


@pytest.mark.parametrize(('name', 'speed', 'attribute'), [
    ('car', 3, 'vehicle.moving'), ('car', 0, 'vehicle.parked'), ('bus', 0, 'vehicle.stopped'),
    ('pedestrian', 1, 'pedestrian.moving'), ('pedestrian', 0, 'pedestrian.standing'),
    ('bicycle', 2, 'cycle.with_rider'), ('motorcycle', 0, 'cycle.without_rider'),
    ('barrier', 0, ''), ('traffic_cone', 0, '')])
def test_attributes_follow_motion(name: str, speed: float, attribute: str) -> None:
    thing = nuscenes_world.Thing(name, (1, 1, 1), (0, 0), 0, speed, 1)
    assert thing.attribute == attribute


def test_ego_vehicle_drives_forward_along_a_circle() -> None:
    world = make_world(0, 'train', 0)
    small = 1e-4
    for time in (0.0, 1.0, 2.5):
        velocity = (world.ego(time + small) - world.ego(time - small))[:3, 3] / (2 * small)
        assert np.allclose(velocity, world.speed * world.ego(time)[:3, 0], atol=1e-6)
        turned = world.ego(time)[:3, :3].T @ world.ego(time + 1)[:3, :3]
        assert math.atan2(turned[1, 0], turned[0, 0]) == pytest.approx(world.turning)


def test_cameras_look_where_they_should() -> None:
    world = make_world(0, 'train', 0)
    yaws = {}
    for camera in CAMERAS:
        pose = world.sensor(camera)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
        assert np.allclose(pose[:3, 1], (0, 0, -1)), 'y of a camera is down'
        yaws[camera] = math.degrees(math.atan2(pose[1, 2], pose[0, 2]))
    assert [round(yaws[camera]) % 360 for camera in CAMERAS] == [0, 305, 55, 180, 108, 250]
    assert np.allclose(world.sensor(LIDAR)[:3, 1], (1, 0, 0)), 'y of the LiDAR is forward'
    assert intrinsics('CAM_BACK')[0, 0] < intrinsics('CAM_FRONT')[0, 0]


def test_cameras_have_poses_of_their_own_time() -> None:
    world = make_world(0, 'train', 1)
    for camera in CAMERAS:
        delay = world.timestamp(2, camera) - world.timestamp(2)
        assert 1_000 < delay < 50_000
        apart = world.sensor_to_world(2, camera) @ np.linalg.inv(world.sensor(camera))
        moved = np.linalg.norm((apart - world.ego(2 * INTERVAL))[:3, 3])
        assert moved == pytest.approx(world.speed * delay / 1e6, rel=1e-3)


def test_tilt_is_more_than_yaw() -> None:
    level, tilted = (make_world(0, 'val', 0, tilt) for tilt in (False, True))
    assert level.things == tilted.things
    assert np.allclose(level.sensor(LIDAR)[2, :2], 0) and np.allclose(level.ego(1.0)[2, :2], 0)
    up = tilted.sensor(LIDAR)[:3, 2]
    assert math.degrees(math.acos(up[2])) == pytest.approx(1.4)
    assert np.abs(tilted.ego(1.0)[2, :2]).max() > 0.01
    assert np.allclose(tilted.ego(1.0)[:3, 3], level.ego(1.0)[:3, 3])


def test_worlds_depend_on_all_they_are_told() -> None:
    make_world.cache_clear()
    first = make_world(0, 'train', 0)
    make_world.cache_clear()
    assert make_world(0, 'train', 0) == first
    others = [make_world(1, 'train', 0), make_world(0, 'train', 1), make_world(0, 'val', 0)]
    assert len({world.things for world in (first, *others)}) == 4
