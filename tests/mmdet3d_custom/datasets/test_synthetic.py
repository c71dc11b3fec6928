"""Random samples of six cameras: what is annotated stands where it is said to, in both frames."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmdcn.apis.config import load_config
from mmdcn.apis.inference import task_scope
from tests.helpers import ROOT
from tools.bench import synthetic

SIZE = (160, 400)


@pytest.fixture(scope='module')
def sample() -> Any:
    """The second sample of a batch of two."""
    path, = (ROOT / 'configs' / 'mini').glob('bevformer-v2-t1_*.py')
    cfg = load_config(str(path), ['model.frames=[-1,0]'])
    with task_scope(cfg):
        data = synthetic.make_batch(cfg, True, SIZE, 2)
        plain = synthetic.make_batch(cfg, False, SIZE, 1)['data_samples'][0]
    assert [image.shape for image in data['inputs']['img']] == [(12, 3, *SIZE)] * 2
    assert not torch.equal(*data['inputs']['img'])
    assert 'gt_instances_3d' not in plain and 'gt_instances_perspective' not in plain
    return data['data_samples'][1]


def test_cameras_see_all_around(sample: Any) -> None:
    assert sample.lidar2img.shape == (2, 6, 4, 4) and sample.frame_valid.all()
    assert sample.frame_tokens == ['1 -1', '']
    for camera, bearing in enumerate(np.radians([90, 30, -30, -90, -150, 150])):
        ahead = np.array([20 * np.cos(bearing), 20 * np.sin(bearing), 0, 1])
        x, y, depth, _ = sample.lidar2img[0, camera] @ ahead
        assert (x / depth, y / depth, depth) == pytest.approx((200, 80, 20))


def test_boxes_stand_where_perspective_boxes_do(sample: Any) -> None:
    boxes, seen = sample.gt_instances_3d, sample.gt_instances_perspective
    assert len(boxes.labels_3d) == 30 and len(seen.labels) > 20
    assert set(seen.cameras.tolist()) == set(range(6))
    centers = boxes.bboxes_3d.gravity_center.double()
    corners = boxes.bboxes_3d.corners.double()
    for index, camera in enumerate(seen.cameras.tolist()):
        move = torch.from_numpy(sample.lidar2cam[camera])
        moved = centers @ move[:3, :3].T + move[:3, 3]
        distance, box = (moved - seen.centers[index]).norm(dim=1).min(0)
        assert distance < 1e-4 and boxes.labels_3d[box] == seen.labels[index]
        points = torch.from_numpy(sample.lidar2img[1, camera]) @ torch.nn.functional.pad(
            corners[box], (0, 1), value=1.0).T
        pixels = points[:2] / points[2]
        limits = torch.tensor([SIZE[1], SIZE[0]])[:, None]
        pixels = pixels.clamp(min=torch.zeros_like(limits), max=limits)
        assert torch.cat([pixels.amin(1), pixels.amax(1)]) == pytest.approx(
            seen.bboxes[index].double(), abs=1e-2)
        width, length, height = seen.sizes[index].tolist()
        assert boxes.bboxes_3d.dims[box].tolist() == pytest.approx([length, width, height])
