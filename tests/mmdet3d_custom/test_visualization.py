"""Pictures of samples of six cameras: what stands where."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

import mmdet3d_custom  # noqa: F401
from mmdet3d_custom.visualization import (
    TRUTH,
    MultiViewVisualizer,
    current_views,
    draw_box,
)

SIZE = (40, 60)  # of a view


def matrices() -> np.ndarray:
    """(1, 6, 4, 4): the first looks along y, the fourth along -y, the others along x from 50 m."""
    intrinsic = np.array([[30., 0, 30, 0], [0, 30, 20, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    looks = {0: (0, 1), 3: (0, -1)}
    found = []
    for camera in range(6):
        x, y = looks.get(camera, (1, 0))
        found.append(intrinsic @ np.array([[y, -x, 0, 0], [0, 0, -1, 0],
                                           [x, y, 0, 0 if camera in looks else -50],
                                           [0, 0, 0, 1]], float))
    return np.stack(found)[None]


def boxes(*rows: tuple[float, ...]) -> LiDARInstance3DBoxes:
    """Boxes x y z, length width height, yaw, standing still."""
    return LiDARInstance3DBoxes(torch.tensor([[*row, 0., 0.] for row in rows]).view(-1, 9),
                                box_dim=9, origin=(0.5, 0.5, 0.5))


def sample(found: LiDARInstance3DBoxes, scores: list[float],
           truth: LiDARInstance3DBoxes | None = None) -> Det3DDataSample:
    """A data sample with predictions of class 0."""
    result = Det3DDataSample(metainfo=dict(frames=(0, ), lidar2img=matrices(), img_shape=SIZE))
    result.pred_instances_3d = InstanceData(
        bboxes_3d=found, scores_3d=torch.tensor(scores),
        labels_3d=torch.zeros(len(scores), dtype=torch.long))
    if truth is not None:
        result.eval_ann_info = dict(gt_bboxes_3d=truth)
    return result


def draw(data: Det3DDataSample, truth: bool = False) -> np.ndarray:
    images = torch.zeros(6, 3, *SIZE, dtype=torch.uint8)
    return MultiViewVisualizer(extent=20.).draw_views(images, data, 0.3, truth)


def test_a_box_ahead_appears_in_the_front_view_and_above_the_middle() -> None:
    picture = draw(sample(boxes((0, 10, 0, 4, 2, 2, np.pi / 2)), [0.9]))
    height, width = SIZE
    assert picture.shape == (2 * height, 3 * width + 2 * height, 3)
    drawn = picture[:, :3 * width].any(-1)
    rows, columns = drawn.nonzero()
    assert rows.max() < height, 'the lower views look elsewhere'
    assert width <= columns.min() and columns.max() < 2 * width, 'front is above in the middle'
    assert abs(columns.mean() - 1.5 * width) < 1.5

    above = picture[:, 3 * width:].astype(int)
    empty = draw(sample(boxes(), []))[:, 3 * width:].astype(int)
    rows, columns = np.abs(above - empty).any(-1).nonzero()
    # 80 pixels are 40 m: 10 m ahead is 20 pixels above the middle, 4 m are 8 pixels.
    assert abs(rows.mean() - 20) < 2 and abs(columns.mean() - 40) < 1.5
    assert abs(rows.max() - rows.min() - 8) <= 2 and abs(columns.max() - columns.min() - 4) <= 2


def test_scores_below_the_threshold_are_not_drawn_and_the_truth_is_white() -> None:
    box = boxes((0, 10, 0, 4, 2, 2, 0))
    nothing = draw(sample(boxes(), []))
    assert (draw(sample(box, [0.2])) == nothing).all()
    data = sample(boxes(), [], truth=box)
    assert (draw(data) == nothing).all()
    picture = draw(data, truth=True)[:SIZE[0], SIZE[1]:2 * SIZE[1]]
    assert picture.max() == TRUTH[0] and (picture[..., 0] == picture[..., 2]).all()


def test_boxes_behind_the_camera_are_not_drawn_and_those_across_its_plane_are_cut() -> None:
    view = np.zeros((*SIZE, 3), np.uint8)
    behind = boxes((0, -10, 0, 4, 2, 2, 0)).corners[0].numpy()
    draw_box(view, behind, matrices()[0, 0], (255, 0, 0), 1)
    assert not view.any()
    across = boxes((0, 0, -2, 2, 20, 1, 0)).corners[0].numpy()
    draw_box(view, across, matrices()[0, 0], (255, 0, 0), 1)
    rows, _ = view[..., 0].nonzero()
    assert len(rows) and rows.min() >= SIZE[0] / 2, 'it lies below the camera'


def test_views_are_those_of_the_current_frame_unpadded_unmirrored_rgb() -> None:
    images = torch.zeros(12, 3, 4, 8, dtype=torch.uint8)
    images[6, 0, 1, 7] = 9  # blue, at the right end of the mirrored picture
    data = sample(boxes(), [])
    data.set_metainfo(dict(frames=(-1, 0), img_shape=(3, 5), flip=True))
    views = current_views(images, data)
    assert len(views) == 6 and views[0].shape == (3, 5, 3)
    assert views[0][1, 0].tolist() == [0, 0, 9]
    assert not views[1].any()


def test_six_pictures_are_needed() -> None:
    with pytest.raises(ValueError, match='got 5 pictures, expected 6 of each of the 1 frames'):
        current_views(torch.zeros(5, 3, *SIZE, dtype=torch.uint8), sample(boxes(), []))
