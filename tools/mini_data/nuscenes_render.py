"""Pictures and LiDAR points of the mini nuScenes set.

Boxes are cuboids in the colour of their class on a chequered ground; front, sides and rear differ
in brightness, so that a picture tells which way a box looks.
"""
from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from tools.mini_data.nuscenes_world import (
    HEIGHT,
    KINDS,
    LIDAR,
    WIDTH,
    Thing,
    World,
    intrinsics,
)

# The ground is drawn at a fraction of the size; nothing on it is fine.
_COARSE = 4
_TILE = 2.0
_NEAR = 0.3
_FIXED_POINT = 4  # bits behind the point in OpenCV's polygon corners
# Outward normal of each face, its corners in order around it in half sides, its brightness.
_FACES = (
    ((1, 0, 0), ((1, -1, -1), (1, 1, -1), (1, 1, 1), (1, -1, 1)), 1.0),
    ((-1, 0, 0), ((-1, -1, -1), (-1, 1, -1), (-1, 1, 1), (-1, -1, 1)), 0.5),
    ((0, 1, 0), ((-1, 1, -1), (1, 1, -1), (1, 1, 1), (-1, 1, 1)), 0.75),
    ((0, -1, 0), ((-1, -1, -1), (1, -1, -1), (1, -1, 1), (-1, -1, 1)), 0.75),
    ((0, 0, 1), ((-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, 1, 1)), 0.9),
)


def _half_sides(thing: Thing) -> np.ndarray:
    width, length, height = thing.size
    return np.array([length, width, height]) / 2


def _background(to_world: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Sky and chequered ground as a float RGB picture of the full size."""
    # Where OpenCV's linear resizing puts the coarse pixels.
    columns = np.arange(WIDTH // _COARSE) * _COARSE + (_COARSE - 1) / 2
    rows = np.arange(HEIGHT // _COARSE) * _COARSE + (_COARSE - 1) / 2
    u, v = np.meshgrid(columns, rows)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(matrix).T @ to_world[:3, :3].T
    down = np.minimum(rays[..., 2], -1e-6)
    distance = -to_world[2, 3] / down
    points = to_world[:2, 3] + distance[..., None] * rays[..., :2]
    far = np.clip(np.hypot(points[..., 0] - to_world[0, 3], points[..., 1] - to_world[1, 3])
                  / 60, 0, 1)
    tiles = np.floor(points / _TILE).sum(-1) % 2
    ground = 115 + (tiles - 0.5) * 50 * (1 - far)
    ground = ground[..., None] + far[..., None] * np.array([35.0, 40.0, 45.0])
    sky = np.array([150.0, 170.0, 200.0]) * np.ones_like(ground)
    coarse = np.where(rays[..., 2:] < 0, ground, sky).astype(np.float32)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


def _clip_near(corners: np.ndarray) -> np.ndarray:
    """The part of a convex polygon (N, 3) in front of the near plane, (M, 3)."""
    kept = []
    for first, second in zip(corners, np.roll(corners, -1, 0), strict=True):
        if first[2] >= _NEAR:
            kept.append(first)
        if (first[2] >= _NEAR) != (second[2] >= _NEAR):
            kept.append(first + (second - first) * (_NEAR - first[2]) / (second[2] - first[2]))
    return np.array(kept).reshape(-1, 3)


def _paint(picture: np.ndarray, thing: Thing, to_camera: np.ndarray, matrix: np.ndarray) -> None:
    """Paint the faces of a box that look at the camera; ``to_camera`` is its pose there."""
    half = _half_sides(thing)
    eye = -to_camera[:3, :3].T @ to_camera[:3, 3]
    for normal, corners, brightness in _FACES:
        if np.dot(normal, eye) <= np.abs(np.dot(normal, half)):
            continue
        points = (np.array(corners) * half) @ to_camera[:3, :3].T + to_camera[:3, 3]
        points = _clip_near(points)
        if len(points) < 3:
            continue
        pixels = points @ matrix.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        colour = np.array(KINDS[thing.name].colour) * thing.shade * brightness
        cv2.fillConvexPoly(picture, np.round(pixels * 2 ** _FIXED_POINT).astype(np.int32),
                           colour.tolist(), cv2.LINE_AA, _FIXED_POINT)


def _covers(first: np.ndarray, first_half: np.ndarray, second: np.ndarray,
            second_half: np.ndarray, eye: np.ndarray) -> bool:
    """Whether the second of two boxes may cover the first, as a side of one of them tells.

    Args:
        first: 4x4 pose of an upright box in the world.
        first_half: Half its length, width and height.
        second: Of another one; they do not overlap.
        second_half: Half its sides.
        eye: Where both are seen from, (3,).
    """
    for to, half, other, other_half, inner in ((first, first_half, second, second_half, False),
                                               (second, second_half, first, first_half, True)):
        corners = np.array([(x, y, 0) for x in (-1, 1) for y in (-1, 1)]) * other_half
        corners = (corners @ other[:3, :3].T + other[:3, 3] - to[:3, 3]) @ to[:3, :3]
        seen = (eye - to[:3, 3]) @ to[:3, :3]
        for axis in (0, 1):
            for sign in (-1, 1):
                if (sign * corners[:, axis]).min() >= half[axis]:
                    # A plane parts them; what is on the side of the eye is before the other.
                    return bool(sign * seen[axis] > half[axis]) != inner
    return False


def _far_to_near(things: Sequence[Thing], poses: list[np.ndarray], eye: np.ndarray) -> list[int]:
    """Numbers of boxes in the order in which they are painted."""
    halves = [_half_sides(thing) for thing in things]
    distances = [np.linalg.norm(to[:3, 3] - eye) for to in poses]
    # Whom each one covers.
    below = [{other for other in range(len(things)) if other != number and _covers(
        poses[other], halves[other], poses[number], halves[number], eye)}
        for number in range(len(things))]
    order: list[int] = []
    left = set(range(len(things)))
    while left:
        free = [number for number in left if not below[number] & left]
        # Boxes that cover one another in a circle have no order.
        following = max(free or left, key=lambda number: (distances[number], number))
        order.append(following)
        left.remove(following)
    return order


def render(world: World, frame: int, camera: str) -> np.ndarray:
    """What a camera sees of a key frame, with its own pose: (900, 1600, 3) uint8 RGB.

    Boxes stand where they are annotated, at the time of the key frame.
    """
    matrix, to_world = intrinsics(camera), world.sensor_to_world(frame, camera)
    picture = np.clip(np.round(_background(to_world, matrix)), 0, 255).astype(np.uint8)
    time = world.seconds(world.timestamp(frame))
    from_world = np.linalg.inv(to_world)
    poses = [thing.pose(time) for thing in world.things]
    for number in _far_to_near(world.things, poses, to_world[:3, 3]):
        _paint(picture, world.things[number], from_world @ poses[number], matrix)
    return picture


def scan(world: World, frame: int) -> tuple[np.ndarray, list[int]]:
    """LiDAR points of a key frame: on the ground, and on the faces that look at the sensor.

    Returns:
        Points (N, 5) float32, x y z in the LiDAR frame, intensity and ring, and how many of them
        lie within each box of the world.
    """
    rng = np.random.default_rng([world.seed, 4, world.first_timestamp % 2 ** 31, frame])
    time = world.seconds(world.timestamp(frame))
    to_world = world.sensor_to_world(frame, LIDAR)
    poses = [thing.pose(time) for thing in world.things]
    parts = []
    for thing, to in zip(world.things, poses, strict=True):
        if thing.without_points:
            continue
        half = _half_sides(thing)
        eye = to[:3, :3].T @ (to_world[:3, 3] - to[:3, 3])
        count = int(np.clip(6000 / (eye @ eye), 8, 300))
        points = rng.uniform(-1, 1, (count, 3))
        faces = [axis for axis in range(3) if abs(eye[axis]) > half[axis]]
        chosen = rng.choice(faces, count)
        points[np.arange(count), chosen] = np.sign(eye)[chosen]
        # Slightly within, so that rounding puts none outside.
        parts.append((0.98 * points * half) @ to[:3, :3].T + to[:3, 3])
    around = rng.uniform((4.0, -np.pi), (60.0, np.pi), (1500, 2))
    parts.append(np.stack([to_world[0, 3] + around[:, 0] * np.cos(around[:, 1]),
                           to_world[1, 3] + around[:, 0] * np.sin(around[:, 1]),
                           np.full(1500, -0.02)], -1))
    points = np.concatenate(parts)
    inside = []
    for thing, to in zip(world.things, poses, strict=True):
        own = (points - to[:3, 3]) @ to[:3, :3]
        inside.append(int((np.abs(own) <= _half_sides(thing)).all(-1).sum()))
    local = (points - to_world[:3, 3]) @ to_world[:3, :3]
    extra = np.stack([rng.uniform(0, 100, len(points)), rng.integers(0, 32, len(points))], -1)
    return np.concatenate([local, extra], -1).astype(np.float32), inside
