"""The world of the mini nuScenes set: a car with its sensors, and boxes that stand or drive.

Frames as in nuScenes: ego x forward, y left, z up; camera x right, y down, z forward; LiDAR x
right, y forward, z up. Poses are 4x4 matrices from the named frame to its parent.
"""
from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tools.mini_data.classes import NUSCENES_CLASSES

WIDTH, HEIGHT = 1600, 900
FRAMES = 6
"""Key frames of a scene, half a second apart."""

INTERVAL = 0.5
SCENES = {'train': ('scene-0061', 'scene-0553', 'scene-0655', 'scene-0757', 'scene-0796',
                    'scene-1077', 'scene-1094', 'scene-1100'),
          'val': ('scene-0103', 'scene-0916')}
"""All names of the official splits ``mini_train`` and ``mini_val``."""

CAMERAS = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT',
           'CAM_BACK_RIGHT')
LIDAR = 'LIDAR_TOP'
# Yaw in degrees, focal length in pixels, place on the ego vehicle in m, delay in microseconds.
_RIG = {
    'CAM_FRONT': (0.0, 1260.0, (1.70, 0.02, 1.51), 12_404),
    'CAM_FRONT_RIGHT': (-55.0, 1260.0, (1.55, -0.49, 1.50), 20_482),
    'CAM_FRONT_LEFT': (55.0, 1260.0, (1.52, 0.49, 1.51), 4_799),
    'CAM_BACK': (180.0, 809.0, (0.03, 0.00, 1.57), 37_525),
    'CAM_BACK_LEFT': (108.0, 1260.0, (1.04, 0.48, 1.56), 47_200),
    'CAM_BACK_RIGHT': (-110.0, 1260.0, (1.06, -0.48, 1.56), 27_893),
}
_LIDAR_PLACE = (0.94, 0.0, 1.84)
# The rotation from camera axes to ego axes of a camera that looks forward.
_CAMERA_AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class Kind:
    """What the boxes of a class have in common.

    ``size`` is width, length, height in m; ``colour`` RGB; ``reach`` the range in m within which
    the official evaluation counts them; ``speeds`` the range in m/s of those that move.
    """

    category: str
    size: tuple[float, float, float]
    colour: tuple[int, int, int]
    reach: float
    speeds: tuple[float, float] | None = None


KINDS = {
    'barrier': Kind('movable_object.barrier', (2.3, 0.5, 1.0), (235, 35, 35), 30),
    'bicycle': Kind('vehicle.bicycle', (0.6, 1.7, 1.3), (240, 150, 30), 40, (1.0, 4.0)),
    'bus': Kind('vehicle.bus.rigid', (2.9, 10.7, 3.3), (220, 220, 30), 50, (2.0, 6.0)),
    'car': Kind('vehicle.car', (1.95, 4.6, 1.74), (120, 220, 30), 50, (3.0, 8.0)),
    'construction_vehicle': Kind('vehicle.construction', (2.8, 6.5, 3.2), (30, 190, 60), 50),
    'motorcycle': Kind('vehicle.motorcycle', (0.78, 2.1, 1.45), (30, 210, 170), 40, (2.0, 7.0)),
    'pedestrian': Kind('human.pedestrian.adult', (0.67, 0.72, 1.76), (30, 110, 235), 40,
                       (0.8, 1.6)),
    'traffic_cone': Kind('movable_object.trafficcone', (0.4, 0.4, 1.0), (90, 40, 230), 30),
    'trailer': Kind('vehicle.trailer', (2.9, 10.5, 3.9), (190, 40, 230), 50),
    'truck': Kind('vehicle.truck', (2.5, 6.9, 2.8), (235, 40, 150), 50, (2.0, 6.0)),
}
# Beside one of each class.
_MORE = ('car', 'car', 'car', 'pedestrian', 'pedestrian', 'truck', 'barrier', 'traffic_cone')


def axis_rotation(axis: str, angle: float) -> np.ndarray:
    """3x3 matrix that turns counter-clockwise about ``'x'``, ``'y'`` or ``'z'`` by radians."""
    first, second = {'x': (1, 2), 'y': (2, 0), 'z': (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
    return matrix


def pose(rotation: np.ndarray, translation: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """4x4 matrix of a rotation and a translation."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation
    return matrix


def quaternion(rotation: np.ndarray) -> list[float]:
    """Quaternion w x y z of a 3x3 rotation, w not negative."""
    # The eigenvector of the largest eigenvalue is accurate for every angle, also half a turn.
    m = rotation
    k = np.array([
        [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
        [0, m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
        [0, 0, m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1]],
        [0, 0, 0, m[2, 2] - m[0, 0] - m[1, 1]]])
    vector = np.linalg.eigh(k + np.triu(k, 1).T)[1][:, -1]
    return (vector if vector[0] >= 0 else -vector).tolist()


def token(*parts: object) -> str:
    """A name of 32 hexadecimal digits, the same for the same parts."""
    return hashlib.md5('/'.join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Thing:
    """One box: width, length, height in m, its place on the ground at time 0 and its motion."""

    name: str
    size: tuple[float, float, float]
    start: tuple[float, float]
    yaw: float
    speed: float
    shade: float
    without_points: bool = False

    def pose(self, time: float) -> np.ndarray:
        """4x4 pose of its center in the world; ``time`` in s."""
        along = self.speed * time
        return pose(axis_rotation('z', self.yaw), (
            self.start[0] + along * math.cos(self.yaw), self.start[1] + along * math.sin(self.yaw),
            self.size[2] / 2))

    @property
    def radius(self) -> float:
        """Of the circle around its footprint, in m."""
        return math.hypot(self.size[0], self.size[1]) / 2

    @property
    def attribute(self) -> str:
        """The attribute that nuScenes gives for its class and motion; empty for those without."""
        moves = self.speed > 0
        if self.name in ('barrier', 'traffic_cone'):
            return ''
        if self.name in ('bicycle', 'motorcycle'):
            return 'cycle.with_rider' if moves else 'cycle.without_rider'
        if self.name == 'pedestrian':
            return 'pedestrian.moving' if moves else 'pedestrian.standing'
        still = 'vehicle.stopped' if self.name == 'bus' else 'vehicle.parked'
        return 'vehicle.moving' if moves else still


@dataclass(frozen=True)
class World:
    """One scene: the path of the ego vehicle and all boxes.

    ``tilted`` gives the LiDAR a roll of 1.4 degrees and the ego vehicle some pitch and roll, as in
    the real set: what takes yaw for the whole rotation is wrong here.
    """

    name: str
    seed: int
    start: tuple[float, float, float]
    speed: float
    turning: float
    first_timestamp: int
    tilted: bool
    things: tuple[Thing, ...] = ()

    def ego(self, time: float) -> np.ndarray:
        """4x4 pose of the ego vehicle in the world; ``time`` in s from the first key frame."""
        x, y, yaw = self.start
        turn = self.turning * time
        # Along a circle; the chord leaves at half the angle.
        chord = self.speed * time * np.sinc(turn / 2 / math.pi)
        rotation = axis_rotation('z', yaw + turn)
        if self.tilted:
            rotation = rotation @ axis_rotation('y', 0.03 * math.sin(3 * time + 1)) @ \
                axis_rotation('x', 0.02 * math.cos(2 * time))
        return pose(rotation, (x + chord * math.cos(yaw + turn / 2),
                               y + chord * math.sin(yaw + turn / 2), 0.0))

    def sensor(self, channel: str) -> np.ndarray:
        """4x4 pose of a sensor on the ego vehicle."""
        if channel == LIDAR:
            rotation = axis_rotation('z', -math.pi / 2)
            if self.tilted:
                rotation = rotation @ axis_rotation('x', math.radians(1.4))
            return pose(rotation, _LIDAR_PLACE)
        yaw, _, place, _ = _RIG[channel]
        return pose(axis_rotation('z', math.radians(yaw)) @ _CAMERA_AXES, place)

    def timestamp(self, frame: int, channel: str = LIDAR) -> int:
        """When a sensor takes a key frame, in microseconds."""
        delay = 0 if channel == LIDAR else _RIG[channel][3]
        return self.first_timestamp + round(frame * INTERVAL * 1e6) + delay

    def seconds(self, timestamp: int) -> float:
        """Time from the first key frame in s."""
        return (timestamp - self.first_timestamp) / 1e6

    def sensor_to_world(self, frame: int, channel: str) -> np.ndarray:
        """4x4 pose of a sensor in the world when it takes a key frame."""
        return self.ego(self.seconds(self.timestamp(frame, channel))) @ self.sensor(channel)


def intrinsics(channel: str) -> np.ndarray:
    """3x3 camera matrix."""
    focal = _RIG[channel][1]
    return np.array([[focal, 0.0, 816.0], [0.0, focal, 480.0], [0.0, 0.0, 1.0]])


def _collides(thing: Thing, others: list[Thing], world: World) -> bool:
    """Whether a box comes too close to others or to the ego vehicle, at any time."""
    for half in range(2 * FRAMES - 1):
        time = half * INTERVAL / 2
        place = thing.pose(time)[:2, 3]
        if np.linalg.norm(place - world.ego(time)[:2, 3]) < thing.radius + 3.5:
            return True
        if any(np.linalg.norm(place - other.pose(time)[:2, 3]) < thing.radius + other.radius + 0.3
               for other in others):
            return True
    return False


def _draw_thing(rng: np.random.Generator, name: str, world: World, others: list[Thing],
                without_points: bool) -> Thing:
    """A box of a class that is within reach of the ego vehicle in the first or second frame."""
    kind = KINDS[name]
    size = tuple(float(side * rng.uniform(0.9, 1.1)) for side in kind.size)
    moves = kind.speeds is not None and rng.uniform() < 0.5
    speed = float(rng.uniform(*kind.speeds)) if moves and kind.speeds else 0.0
    shade = float(rng.uniform(0.8, 1.0))
    while True:
        time = float(rng.integers(2)) * INTERVAL
        distance = rng.uniform(5.0, 0.8 * kind.reach)
        bearing, yaw = rng.uniform(-math.pi, math.pi, 2)
        place = world.ego(time)[:2, 3] + distance * np.array([math.cos(bearing),
                                                              math.sin(bearing)])
        start = place - speed * time * np.array([math.cos(yaw), math.sin(yaw)])
        thing = Thing(name, size, (float(start[0]), float(start[1])), float(yaw), speed, shade,
                      without_points)
        if not _collides(thing, others, world):
            return thing


@lru_cache(maxsize=4)
def make_world(seed: int, split: str, scene: int, tilted: bool = False) -> World:
    """The world of a scene; it depends on nothing but these values.

    Every class is there, within the range that the official evaluation counts. The last box gets no
    LiDAR points, so that evaluation and training leave it out.
    """
    number = [*SCENES['train'], *SCENES['val']].index(SCENES[split][scene])
    rng = np.random.default_rng([seed, 3, number])
    start = (*rng.uniform((400.0, 900.0), (900.0, 1500.0)), rng.uniform(-math.pi, math.pi))
    world = World(SCENES[split][scene], seed, tuple(map(float, start)),
                  float(rng.uniform(2.0, 6.0)), float(rng.uniform(-0.08, 0.08)),
                  1_532_402_927_000_000 + number * 100_000_000, tilted)
    things: list[Thing] = []
    # The long ones first, while there is room.
    names = sorted(NUSCENES_CLASSES + _MORE, key=lambda name: -max(KINDS[name].size))
    for name in names:
        things.append(_draw_thing(rng, name, world, things, False))
    things.append(_draw_thing(rng, 'pedestrian', world, things, True))
    return World(**{**world.__dict__, 'things': tuple(things)})
