"""Pictures and points of the synthetic world, against rays."""
from __future__ import annotations

import numpy as np
import pytest

from tools.mini_data.nuscenes_render import render, scan
from tools.mini_data.nuscenes_world import (
    CAMERAS,
    KINDS,
    LIDAR,
    Thing,
    World,
    intrinsics,
    make_world,
)


def world_with(*things: Thing) -> World:
    """An ego vehicle at the origin, which stands and looks along x, and boxes."""
    return World('test', 0, (0.0, 0.0, 0.0), 0.0, 0.0, 0, False, things)


def first_hit(world: World, ray: np.ndarray, eye: np.ndarray, time: float) -> int | None:
    """Number of the box that a ray meets first, by the method of slabs."""
    nearest, found = np.inf, None
    for number, thing in enumerate(world.things):
        to = thing.pose(time)
        start, way = to[:3, :3].T @ (eye - to[:3, 3]), to[:3, :3].T @ ray
        half = np.array([thing.size[1], thing.size[0], thing.size[2]]) / 2
        with np.errstate(divide='ignore'):
            sides = np.sort([(-half - start) / way, (half - start) / way], 0)
        if max(sides[0].max(), 0) < sides[1].min() and sides[0].max() < nearest:
            nearest, found = sides[0].max(), number
    return found


@pytest.mark.parametrize('tilted', [False, True])
@pytest.mark.parametrize(('seed', 'split', 'scene', 'camera'), [
    (0, 'train', 0, 'CAM_FRONT_LEFT'), (0, 'val', 1, 'CAM_BACK_LEFT'),
    (1, 'val', 0, 'CAM_FRONT_LEFT')])
def test_pixels_show_the_box_that_their_ray_meets(seed: int, split: str, scene: int, camera: str,
                                                  tilted: bool) -> None:
    world, rng = make_world(seed, split, scene, tilted), np.random.default_rng(0)
    picture, to_world = render(world, 1, camera), world.sensor_to_world(1, camera)
    assert picture.shape == (900, 1600, 3) and picture.dtype == np.uint8
    wrong = hits = 0
    for x, y in zip(rng.integers(1600, size=500), rng.integers(420, 580, 500), strict=True):
        ray = to_world[:3, :3] @ np.linalg.inv(intrinsics(camera)) @ [x, y, 1]
        hit = first_hit(world, ray, to_world[:3, 3], 0.5)
        neighbours = picture[y - 1:y + 2, max(x - 1, 0):x + 2].reshape(-1, 3)
        if np.ptp(neighbours.astype(int), 0).max() > 12:
            continue  # an edge, where rays may go either way
        grey = np.ptp(picture[y, x].astype(int)) <= 55  # ground, haze and sky
        if hit is None:
            wrong += not grey
            continue
        hits += 1
        colour = np.array(KINDS[world.things[hit].name].colour, float)
        pixel = picture[y, x] / np.linalg.norm(picture[y, x].astype(float))
        wrong += grey or not np.allclose(pixel, colour / np.linalg.norm(colour), atol=0.03)
    assert hits > 20 and wrong == 0


def test_front_sides_and_rear_differ() -> None:
    def shown(yaw: float) -> int:
        thing = Thing('car', (1.9, 4.6, 1.7), (14.0, 0.0), yaw, 0.0, 1.0)
        return int(render(world_with(thing), 0, 'CAM_FRONT')[540, 820, 1])
    rear, side, front = shown(0.0), shown(np.pi / 2), shown(np.pi)
    assert front > side + 20 > rear + 40


def test_boxes_across_the_image_plane_are_cut() -> None:
    """A long box beside the camera reaches behind it."""
    thing = Thing('bus', (2.9, 10.0, 3.3), (3.0, 4.0), 0.0, 0.0, 1.0)
    picture = render(world_with(thing), 0, 'CAM_FRONT')
    left, right = picture[480, 30], picture[480, 1500]
    assert left[0] - int(left[2]) > 80 and np.ptp(right.astype(int)) < 55


def test_what_is_behind_is_not_shown() -> None:
    thing = Thing('bus', (2.9, 10.0, 3.3), (-12.0, 0.0), 0.0, 0.0, 1.0)
    empty = render(world_with(), 0, 'CAM_FRONT')
    assert np.array_equal(render(world_with(thing), 0, 'CAM_FRONT'), empty)
    assert not np.array_equal(render(world_with(thing), 0, 'CAM_BACK'), empty)


def test_near_boxes_cover_far_ones() -> None:
    far = Thing('bus', (2.9, 10.0, 3.3), (30.0, 0.0), 0.0, 0.0, 1.0)
    near = Thing('pedestrian', (0.7, 0.7, 1.8), (10.0, 0.0), 0.0, 0.0, 1.0)
    for things in ((far, near), (near, far)):
        assert render(world_with(*things), 0, 'CAM_FRONT')[520, 816, 2] > 100


def test_a_box_before_the_end_of_a_long_one_covers_it() -> None:
    """Though its center is further away."""
    long = Thing('trailer', (2.9, 20.0, 3.9), (8.0, 8.0), np.pi / 2, 0.0, 1.0)
    small = Thing('pedestrian', (0.7, 0.7, 1.8), (5.5, 16.0), 0.0, 0.0, 1.0)
    for things in ((long, small), (small, long)):
        world = world_with(*things)
        pose = np.linalg.inv(world.sensor_to_world(0, 'CAM_FRONT_LEFT')) @ small.pose(0)
        x, y, depth = intrinsics('CAM_FRONT_LEFT') @ pose[:3, 3]
        pixel = render(world, 0, 'CAM_FRONT_LEFT')[round(y / depth), round(x / depth)].astype(int)
        assert pixel[2] > pixel[0] + 80 and pixel[1] > pixel[0] + 20


@pytest.mark.parametrize('tilted', [False, True])
def test_points_lie_on_the_ground_and_in_boxes(tilted: bool) -> None:
    world = make_world(0, 'val', 1, tilted)
    points, inside = scan(world, 2)
    assert points.dtype == np.float32 and points.shape[1] == 5
    to_world = world.sensor_to_world(2, LIDAR)
    places = points[:, :3] @ to_world[:3, :3].T + to_world[:3, 3]
    counts = []
    for thing in world.things:
        to = thing.pose(1.0)
        own = (places - to[:3, 3]) @ to[:3, :3]
        half = np.array([thing.size[1], thing.size[0], thing.size[2]]) / 2
        within = (np.abs(own) < half).all(-1)
        counts.append(int(within.sum()))
        if counts[-1]:
            # On a face, which is at 0.98 of a half side.
            assert np.allclose(np.abs(own[within] / half).max(-1), 0.98, atol=1e-3)
    assert counts == inside
    assert min(counts[:-1]) >= 3 and counts[-1] == 0
    assert (np.abs(places[:, 2]) < 0.03).sum() >= 1500
    assert (points[:, 4] == np.round(points[:, 4])).all() and points[:, 4].max() < 32


def test_scans_and_pictures_are_the_same_every_time() -> None:
    world = make_world(0, 'train', 0)
    for frame in (0, 1):
        assert np.array_equal(scan(world, frame)[0], scan(world, frame)[0])
    assert scan(world, 0)[0].shape != scan(world, 1)[0].shape or not np.array_equal(
        scan(world, 0)[0], scan(world, 1)[0])
    assert np.array_equal(render(world, 0, CAMERAS[2]), render(world, 0, CAMERAS[2]))
