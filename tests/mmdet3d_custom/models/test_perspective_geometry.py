"""Boxes of the perspective head against plain NumPy, SciPy's rotations and closed forms."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mmdet3d_custom.models import perspective_geometry as geometry
from tests.mmdet3d_custom.models import perspective_scene as scene


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float64)


def annotated(count: int = 12, seed: int = 0) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    """Fields of boxes, and their inverse intrinsics."""
    drawn = scene.draw_boxes(np.random.default_rng(seed), count)
    return drawn, tensor(np.linalg.inv(scene.INTRINSICS)).expand(count, 3, 3)


def test_quaternions_are_rotations_whatever_their_length() -> None:
    rotations = Rotation.random(20, random_state=0)
    quaternions = scene.quaternion(rotations)
    for factor in (1, 0.3, -7):  # q and -q are one rotation
        got = geometry.quaternion_to_matrix(tensor(quaternions * factor))
        np.testing.assert_allclose(got, rotations.as_matrix(), atol=1e-12)


def test_gradient_of_a_zero_quaternion_is_finite() -> None:
    quaternions = torch.zeros(2, 4, requires_grad=True)
    geometry.quaternion_to_matrix(quaternions).sum().backward()
    assert quaternions.grad.isfinite().all()


def test_annotated_boxes_have_their_corners() -> None:
    drawn, inverse = annotated()
    boxes = geometry.camera_boxes(*(tensor(drawn[name]) for name in (
        'quaternions', 'centers', 'sizes')), inverse)
    np.testing.assert_allclose(boxes.centers, drawn['centers'], atol=1e-9)
    for index, got in enumerate(boxes.corners):
        rotation = Rotation.from_quat(drawn['quaternions'][index][[1, 2, 3, 0]]).as_matrix()
        expected = scene.corners(rotation, drawn['centers'][index], drawn['sizes'][index])
        np.testing.assert_allclose(got, expected, atol=1e-9)


def test_corners_are_those_of_nuscenes() -> None:
    classes = pytest.importorskip('nuscenes.utils.data_classes')
    from pyquaternion import Quaternion
    drawn, inverse = annotated(5, seed=1)
    got = geometry.camera_boxes(*(tensor(drawn[name]) for name in (
        'quaternions', 'centers', 'sizes')), inverse).corners
    for index, points in enumerate(got.numpy()):
        box = classes.Box(drawn['centers'][index], drawn['sizes'][index],
                          Quaternion(drawn['quaternions'][index]))
        expected = box.corners().T
        distances = np.linalg.norm(points[:, None] - expected, axis=-1)
        assert (distances.min(0) < 1e-9).all() and (distances.min(1) < 1e-9).all()


def encode(drawn: dict[str, np.ndarray], locations: np.ndarray,
           canonical: np.ndarray) -> list[torch.Tensor]:
    """What the layers would have to say, in plain NumPy: the inverse of the decoding."""
    said: list[list] = [[], [], [], []]
    for index, center in enumerate(drawn['centers']):
        pixel = scene.INTRINSICS @ center
        pixel = pixel[:2] / pixel[2]
        egocentric = Rotation.from_quat(drawn['quaternions'][index][[1, 2, 3, 0]]).as_matrix()
        frame = scene.ray_frame(pixel, scene.INTRINSICS)
        allocentric = scene.quaternion(Rotation.from_matrix(frame.T @ egocentric))
        diagonal = np.sqrt(1 / scene.INTRINSICS[0, 0]**2 + 1 / scene.INTRINSICS[1, 1]**2)
        for part, value in zip(said, (
                allocentric * 1.7, pixel - locations[index], center[2] * 500 * diagonal,
                np.arctanh(drawn['sizes'][index] / canonical[index] - 1)), strict=True):
            part.append(value)
    return [tensor(np.array(part)) for part in said]


def test_decoding_undoes_encoding() -> None:
    drawn, inverse = annotated(30, seed=2)
    locations = np.random.default_rng(3).uniform(0, 100, (30, 2))
    canonical = scene.SIZES[drawn['labels']]
    decoded = geometry.decode_boxes(*encode(drawn, locations, canonical), tensor(locations),
                                    inverse, tensor(canonical), (0.1, 80.0), 500.0)
    true = geometry.camera_boxes(*(tensor(drawn[name]) for name in (
        'quaternions', 'centers', 'sizes')), inverse)
    np.testing.assert_allclose(decoded.corners, true.corners, atol=1e-8)
    np.testing.assert_allclose(decoded.rotations, true.rotations, atol=1e-9)


@pytest.mark.parametrize('degrees', [-35, 0, 20])
def test_level_ray_turns_about_the_cameras_y(degrees: float) -> None:
    angle = np.deg2rad(degrees)
    pixel = tensor(np.array([[83 + 120 * np.tan(angle), 45]]))
    inverse = tensor(np.linalg.inv(scene.INTRINSICS))[None]
    expected = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0],
                         [-np.sin(angle), 0, np.cos(angle)]])
    np.testing.assert_allclose(geometry.ray_frames(pixel, inverse)[0], expected, atol=1e-12)


def test_rays_frames_are_rotations_with_the_ray_as_z() -> None:
    pixels = np.random.default_rng(4).uniform(-50, 200, (10, 2))
    inverse = tensor(np.linalg.inv(scene.INTRINSICS)).expand(10, 3, 3)
    for got, pixel in zip(geometry.ray_frames(tensor(pixels), inverse), pixels, strict=True):
        np.testing.assert_allclose(got, scene.ray_frame(pixel, scene.INTRINSICS), atol=1e-12)
        np.testing.assert_allclose(got @ got.T, np.eye(3), atol=1e-12)
        assert torch.linalg.det(got) == pytest.approx(1)


def test_depth_follows_the_focal_length() -> None:
    zeros, ones = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    quaternion = tensor(np.array([[1., 0, 0, 0]]))
    depths = []
    for zoom in (1, 2):  # a picture enlarged twice holds the same scene
        intrinsics = np.diag([zoom, zoom, 1]) @ scene.INTRINSICS
        boxes = geometry.decode_boxes(quaternion, zeros, tensor(np.array([60.])), ones * 0, zeros,
                                      tensor(np.linalg.inv(intrinsics))[None], ones, (0.1, 80), 500)
        depths.append(float(boxes.depths))
    assert depths[0] == pytest.approx(60 / (500 * np.hypot(1 / 120, 1 / 110)))
    assert depths[1] == pytest.approx(2 * depths[0])


def test_depth_stays_in_its_range() -> None:
    drawn, inverse = annotated(2, seed=5)
    said = encode(drawn, np.zeros((2, 2)), drawn['sizes'])
    said[2] = tensor(np.array([-5., 1e6]))
    boxes = geometry.decode_boxes(*said, torch.zeros(2, 2, dtype=torch.float64), inverse,
                                  tensor(drawn['sizes']), (0.1, 80.0), 500.0)
    assert boxes.depths.tolist() == [0.1, 80.0]


@pytest.mark.parametrize('tilt', [(0, 0), (1.4, -0.8), (15, 10)])
def test_boxes_upright_in_lidar_come_back(tilt: tuple[float, float]) -> None:
    from mmdet3d.structures import LiDARInstance3DBoxes
    rng = np.random.default_rng(6)
    matrix = scene.lidar2cam(30, tilt)
    yaws = rng.uniform(-np.pi, np.pi, 20)
    sizes = rng.uniform(0.5, 5, (20, 3))
    ahead = np.c_[rng.uniform(-3, 3, 20), rng.uniform(-1, 1, 20), rng.uniform(5, 40, 20)]
    centers = (ahead - matrix[:3, 3]) @ matrix[:3, :3]  # in LiDAR
    rotations = [matrix[:3, :3] @ Rotation.from_euler('z', yaw).as_matrix() for yaw in yaws]
    quaternions = scene.quaternion(Rotation.from_matrix(np.array(rotations)))
    boxes = geometry.camera_boxes(tensor(quaternions), tensor(ahead), tensor(sizes), tensor(
        np.linalg.inv(scene.INTRINSICS)).expand(20, 3, 3))
    speeds = rng.uniform(0, 9, 20)
    rows = geometry.to_lidar(boxes, tensor(matrix).expand(20, 4, 4), tensor(speeds))
    np.testing.assert_allclose(rows[:, :3], centers, atol=1e-9)
    np.testing.assert_allclose(rows[:, 3:6], sizes[:, [1, 0, 2]])
    np.testing.assert_allclose(rows[:, 6], yaws, atol=1e-9)
    np.testing.assert_allclose(rows[:, 7:], speeds[:, None] * np.c_[np.cos(yaws), np.sin(yaws)],
                               atol=1e-9)
    lidar = LiDARInstance3DBoxes(rows.float(), box_dim=9, origin=(0.5, 0.5, 0.5))
    seen = lidar.corners.double().numpy() @ matrix[:3, :3].T + matrix[:3, 3]
    distances = np.linalg.norm(seen[:, :, None] - boxes.corners.numpy()[:, None], axis=-1)
    assert distances.min(1).max() < 1e-4


def test_yaw_of_a_rolled_box_is_where_its_x_axis_points() -> None:
    matrix = scene.lidar2cam(0, (5, -3))
    rotation = Rotation.from_euler('zyx', [0.7, 0.3, -0.2])  # in LiDAR
    camera = Rotation.from_matrix(matrix[:3, :3] @ rotation.as_matrix())
    boxes = geometry.camera_boxes(
        tensor(scene.quaternion(camera)[None]), tensor(np.array([[1., 2, 10]])),
        tensor(np.ones((1, 3))), tensor(np.linalg.inv(scene.INTRINSICS))[None])
    row, = geometry.to_lidar(boxes, tensor(matrix)[None], torch.ones(1, dtype=torch.float64))
    heading = rotation.as_matrix()[:, 0]
    assert float(row[6]) == pytest.approx(np.arctan2(heading[1], heading[0]))
