"""Cells, projection and augmentation of the BEV map, and the encoder's layers."""
from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip('mmdet3d_custom')
from mmdet3d.structures import LiDARInstance3DBoxes  # noqa: E402

from mmdet3d_custom.models.bev_encoder import (  # noqa: E402
    PC_RANGE,
    BEVFormerEncoder,
    cell_centers,
    pillar_points,
    project_points,
    warp_bev,
)
from mmdet3d_custom.models.bevformer_v2 import surround_matrices  # noqa: E402


def test_rows_are_y_and_columns_x_from_the_minimum():
    centers = cell_centers((2, 4))
    assert centers.tolist() == [[x, y] for y in (0.25, 0.75) for x in (0.125, 0.375, 0.625, 0.875)]
    points = pillar_points((2, 4), (-8, -2, -5, 8, 2, 3), 4)
    assert points.shape == (8, 4, 3)
    assert points[0, :, :2].unique(dim=0).tolist() == [[-6, -1]]
    assert points[5, 0, :2].tolist() == [-2, 1]
    torch.testing.assert_close(points[3, :, 2], -5 + torch.tensor([0.5, 2.8333333, 5.1666667, 7.5]))


def test_projection_is_that_of_a_loop():
    matrix = surround_matrices(3, 64, 160).double()[None].repeat(2, 1, 1, 1)
    matrix[1, :, :3, 3] += torch.tensor([0.5, -0.25, 1.0])
    points = pillar_points((4, 4), (-20, -20, -5, 20, 20, 3), 2)
    got, inside = project_points(points, matrix, (64, 160))
    assert got.shape == (2, 3, 16, 2, 2) and got.dtype == torch.float64
    for sample in range(2):
        for camera in range(3):
            for cell in range(16):
                for height in range(2):
                    point = torch.cat([points[cell, height].double(), torch.ones(1)])
                    u, v, depth, _ = (matrix[sample, camera] @ point).tolist()
                    where = (sample, camera, cell, height)
                    fine = depth > 1e-5 and 0 < u / depth < 160 and 0 < v / depth < 64
                    assert bool(inside[where]) == fine
                    if fine:
                        x, y = got[where].tolist()
                        assert math.isclose(x, u / depth / 160, abs_tol=1e-9)
                        assert math.isclose(y, v / depth / 64, abs_tol=1e-9)
    assert inside.any() and not inside.all()


def test_what_is_behind_a_camera_or_on_its_edge_is_not_inside():
    matrix = torch.eye(4).view(1, 1, 4, 4)  # pixel = (x, y) / z
    points = torch.tensor([[0.5, 0.5, 1], [-0.5, -0.5, -1], [0.5, 0.5, 1e-5], [0, 0.5, 1],
                           [1, 0.5, 1], [0.5, 0, 1], [0.5, 1, 1], [5e-6, 5e-6, -1]])
    _, inside = project_points(points[:, None], matrix, (1, 1))
    assert inside.flatten().tolist() == [True] + [False] * 7


def test_projection_is_exact_under_autocast():
    matrix = surround_matrices(6, 640, 1600)[None]
    points = pillar_points((8, 8), PC_RANGE, 4)
    exact = project_points(points, matrix, (640, 1600))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = project_points(points, matrix, (640, 1600))
    assert torch.equal(got[0], exact[0]) and torch.equal(got[1], exact[1])


def augmentation(generator: torch.Generator, flip_x: bool, flip_y: bool) -> tuple[float, float,
                                                                                  Tensor]:
    """Angle, scale and the matrix diag(fx, fy, 1) @ s R(a)."""
    angle = float((torch.rand((), generator=generator) - 0.5) * math.pi / 4)
    scale = float(0.95 + 0.1 * torch.rand((), generator=generator))
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    turn = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, scale]])
    mirror = torch.diag(torch.tensor([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0, 1.0]))
    return angle, scale, mirror @ turn


def turned(boxes: LiDARInstance3DBoxes, angle: float, scale: float, flip_x: bool,
           flip_y: bool) -> LiDARInstance3DBoxes:
    """As the augmentation of the ground truth does it."""
    boxes.rotate(angle)
    boxes.scale(scale)
    if flip_x:
        boxes.flip('vertical')
    if flip_y:
        boxes.flip('horizontal')
    return boxes


@pytest.mark.parametrize(('shape', 'pc_range'), [
    ((64, 64), PC_RANGE), ((40, 64), (-32, -12, -5, 32, 28, 3))], ids=['square', 'oblong'])
def test_a_warped_impulse_is_where_the_turned_box_is(shape, pc_range):
    generator = torch.Generator().manual_seed(0)
    low = torch.tensor(pc_range[:2], dtype=torch.float32)
    size = torch.tensor(pc_range[3:5], dtype=torch.float32) - low
    cell = size / torch.tensor([shape[1], shape[0]])
    worst, seen = 0.0, 0
    for draw in range(100):
        flip_x, flip_y = bool(draw & 1), bool(draw & 2)
        angle, scale, bda = augmentation(generator, flip_x, flip_y)
        column, row = (int(torch.randint(2, n - 2, (), generator=generator))
                       for n in (shape[1], shape[0]))
        center = low + (torch.tensor([column, row]) + 0.5) * cell
        bev = torch.zeros(1, *shape, 1)
        bev[0, row, column] = 1
        table = torch.tensor([[float(center[0]), float(center[1]), 0, 1, 1, 1, 0, 0, 0]])
        box = turned(LiDARInstance3DBoxes(table, box_dim=9), angle, scale, flip_x, flip_y)
        target = box.gravity_center[0, :2]
        torch.testing.assert_close(bda[:2, :2] @ center, target, rtol=1e-4, atol=1e-3)
        if not bool(((target > low + 2 * cell) & (target < low + size - 2 * cell)).all()):
            continue
        seen += 1
        weight = warp_bev(bev.flatten(1, 2), bda[None], shape, pc_range)[0]
        centers = low + cell_centers(shape) * size
        found = (weight * centers).sum(0) / weight.sum()
        worst = max(worst, float(((found - target) / cell).abs().max()))
        peak = centers[weight[:, 0].argmax()]
        assert float(((peak - target) / cell).abs().max()) < 1
    assert seen > 50
    assert worst < 0.5


def test_only_what_is_turned_is_sampled():
    bev = torch.randn(3, 16, 2)
    bda = torch.eye(3).repeat(3, 1, 1)
    bda[1] = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    got = warp_bev(bev, bda, (4, 4))
    assert torch.equal(got[0], bev[0]) and torch.equal(got[2], bev[2])
    mirrored = bev[1].view(4, 4, 2).flip(1).flatten(0, 1)  # x is the column
    torch.testing.assert_close(got[1], mirrored, rtol=0, atol=1e-5)
    assert warp_bev(bev, torch.eye(3).repeat(3, 1, 1), (4, 4)) is bev


def test_warp_passes_gradients_and_keeps_the_dtype():
    bev = torch.randn(1, 16, 2, requires_grad=True)
    bda = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))[None]
    warp_bev(bev, bda, (4, 4)).sum().backward()
    torch.testing.assert_close(bev.grad, torch.ones_like(bev), rtol=0, atol=1e-4)
    assert warp_bev(bev.bfloat16(), bda, (4, 4)).dtype == torch.bfloat16


def run(encoder: BEVFormerEncoder, bda: Tensor | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shapes = torch.tensor([[4, 10], [2, 5]])
    query, pos = (torch.randn(2, 16, 8, generator=generator) for _ in range(2))
    value = torch.randn(2, 6, 50, 8, generator=generator)
    return encoder(query, pos, value, shapes, torch.tensor([0, 40]),
                   surround_matrices(6, 64, 160).repeat(2, 1, 1, 1), (64, 160), (4, 4), bda)


def make_encoder(**changes: object) -> BEVFormerEncoder:
    return BEVFormerEncoder(2, 8, 16, num_heads=2, num_levels=2, num_points=4, num_heights=2,
                            **changes)


def test_checkpointing_changes_neither_result_nor_gradient():
    plain, saving = make_encoder(dropout=0.1), make_encoder(dropout=0.1, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    results = []
    for encoder in (plain, saving):
        torch.manual_seed(3)
        out = run(encoder)
        out.square().sum().backward()
        results.append([out.detach(), *(parameter.grad for parameter in encoder.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_the_result_is_turned_by_the_augmentation():
    encoder = make_encoder().eval()
    bda = torch.diag(torch.tensor([1.0, -1.0, 1.0])).repeat(2, 1, 1)
    straight = run(encoder).view(2, 4, 4, 8)
    torch.testing.assert_close(run(encoder, bda).view(2, 4, 4, 8), straight.flip(1), rtol=0,
                               atol=1e-4)
