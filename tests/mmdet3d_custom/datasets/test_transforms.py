"""Transforms: reading, colours, crop and mirror, BEV augmentation, perspective targets, packing."""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmdet3d_custom')

import mmdet3d.datasets  # noqa: F401
from mmdet3d.registry import MODELS, TRANSFORMS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from mmdcn.errors import SampleError
from mmdet3d_custom.datasets.info_file import CAMERAS
from mmdet3d_custom.datasets.nuscenes import CLASSES
from mmdet3d_custom.datasets.transforms import (
    AugmentBEV,
    AugmentViews,
    DistortViews,
    LoadMultiFrameImages,
    PackTemporalInputs,
    PerspectiveTargets,
)
from tests.nuscenes_sets import read_set

RANGE = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]


def pipeline(flip: float = 0.0, heights: tuple[int, ...] = (160, )) -> list[dict[str, Any]]:
    """The published pipeline at a small size."""
    return [{'type': 'LoadMultiFrameImages'},
            {'type': 'DistortViews', 'brightness_delta': 32, 'contrast_range': (0.5, 1.5),
             'saturation_range': (0.5, 1.5), 'hue_delta': 18},
            {'type': 'LoadAnnotations3D', 'with_bbox_3d': True, 'with_label_3d': True},
            {'type': 'AugmentBEV'},
            {'type': 'ObjectRangeFilter', 'point_cloud_range': RANGE},
            {'type': 'ObjectNameFilter', 'classes': CLASSES},
            {'type': 'AugmentViews', 'heights': heights, 'flip': flip},
            {'type': 'PerspectiveTargets'}, {'type': 'PackTemporalInputs'}]


def built(root: Path, steps: list[dict[str, Any]], **kwargs: Any) -> Any:
    """A data set with a pipeline, as a config of mmdet3d builds it."""
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return read_set(root, pipeline=[TRANSFORMS.build(step) for step in steps], **kwargs)


def pictures(count: int = 12, shape: tuple[int, int] = (45, 80), seed: int = 0) -> dict[str, Any]:
    """What transforms of pictures get, with random ones."""
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (*shape, 3), np.uint8) for _ in range(count)]
    frames = count // 6
    return {'img': images, 'img_shape': shape, 'img_path': ['0.jpg'],
            'frames': tuple(range(1 - frames, 1)), 'frame_valid': np.ones(frames, bool),
            'frame_cam2img': np.broadcast_to([[50.0, 0, 40], [0, 50, 20], [0, 0, 1]],
                                             (frames, 6, 3, 3)).copy()}


def test_pictures_are_read_in_the_order_of_frames_and_cameras(nuscenes_root: Path) -> None:
    results = read_set(nuscenes_root, frames=(-1, 0)).collect_frames(1)
    paths = [path for own in results['frame_paths'] for path in own]
    results = LoadMultiFrameImages().transform(results)
    assert len(results['img']) == 12 and results['ori_shape'] == (900, 1600)
    for path, image in zip(paths, results['img'], strict=True):
        assert np.array_equal(image, cv2.imread(path)) and image.dtype == np.uint8
    assert results['img_path'] == paths[6:]


def test_absent_frames_are_black(nuscenes_root: Path) -> None:
    results = LoadMultiFrameImages().transform(
        read_set(nuscenes_root, frames=(-1, 0)).collect_frames(0))
    assert len(results['img']) == 12
    assert not np.any(results['img'][:6]) and all(image.any() for image in results['img'][6:])
    assert not np.any(DistortViews().transform(results)['img'][:6])


@pytest.mark.parametrize(('content', 'words'), [
    (None, 'No such file'), (b'no picture', 'cannot be decoded'),
    (cv2.imencode('.jpg', np.zeros((90, 160, 3), np.uint8))[1].tobytes(),
     'got 160x90, expected 1600x900')])
def test_broken_pictures_are_named(nuscenes_root: Path, tmp_path: Path, content: bytes | None,
                                   words: str) -> None:
    results = read_set(nuscenes_root).collect_frames(0)
    path = tmp_path / 'broken.jpg'
    if content:
        path.write_bytes(content)
    results['frame_paths'][0][3] = str(path)
    with pytest.raises(SampleError, match=rf'broken\.jpg.*{words}'):
        LoadMultiFrameImages().transform(results)


def test_colours_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    distort = DistortViews()
    # mode, brightness, contrast, saturation, hue, swap and their values
    monkeypatch.setattr(distort.distortion, '_random_flags',
                        lambda: (1, 1, 1, 0, 0, 0, 32, 1.5, 1, 0, np.arange(3)))
    results = pictures(6)
    wanted = [np.clip((image.astype(float) + 32) * 1.5, 0, 255) for image in results['img']]
    got = distort.transform(results)['img']
    assert all(image.dtype == np.uint8 for image in got)
    assert max(np.abs(one - two).max() for one, two in zip(got, wanted, strict=True)) <= 1
    assert any((image == 255).all(-1).any() for image in got)


def test_each_picture_has_its_own_colours() -> None:
    results = pictures(6)
    results['img'] = [results['img'][0]] * 6
    np.random.seed(0)
    got = DistortViews().transform(results)['img']
    assert len({image.tobytes() for image in got}) > 3


def test_crop_and_resize_move_points_with_the_picture() -> None:
    """A bright spot lies where the changed matrix projects its point."""
    results = pictures(6, (900, 1600))
    spot = np.array([700, 500])
    for image in results['img']:
        image[:] = 0
        cv2.circle(image, spot.tolist(), 12, (255, 255, 255), -1)
    matrix = np.array([[1000.0, 0, 800], [0, 1000, 450], [0, 0, 1]])
    results['frame_cam2img'] = np.broadcast_to(matrix, (1, 6, 3, 3)).copy()
    ray = np.linalg.inv(matrix) @ [*spot, 1]
    results = AugmentViews((320, ), (100, 260, 1500, 900)).transform(results)
    assert results['img_shape'] == (320, 700) and results['pad_shape'] == (320, 704)
    rows, columns = np.nonzero(results['img'][2][..., 0] > 127)
    x, y = (results['frame_cam2img'][0, 2] @ ray)[:2]
    assert abs(columns.mean() - x) < 0.5 and abs(rows.mean() - y) < 0.5
    moved = (spot - results['views']['offset']) * results['views']['scale']
    assert np.allclose(moved, (x, y))


@pytest.mark.parametrize('pad_value', [(0, 0, 0), (103.53, 116.28, 123.675)])
def test_pictures_are_padded_before_they_are_mirrored(pad_value: tuple) -> None:
    plain = AugmentViews((30, ), (0, 0, 80, 45), 0.0, pad_value=pad_value).transform(pictures())
    flipped = AugmentViews((30, ), (0, 0, 80, 45), 1.0, pad_value=pad_value).transform(pictures())
    assert (plain['flip'], flipped['flip']) == (False, True)
    assert plain['img_shape'] == flipped['img_shape'] == (30, 53)
    assert plain['pad_shape'] == flipped['pad_shape'] == (32, 64)
    for one, two in zip(plain['img'], flipped['img'], strict=True):
        assert one.shape == two.shape == (32, 64, 3)
        assert np.array_equal(one, two[:, ::-1])
        for padding in (one[30:], one[:, 53:]):
            assert (padding == np.rint(pad_value)).all()
    # Matrices are those of the picture that is not mirrored.
    assert np.array_equal(plain['frame_cam2img'], flipped['frame_cam2img'])


def features(image: np.ndarray, width: int) -> torch.Tensor:
    """Means of 8x8 pixels of a picture that its batch pads to a width."""
    padded = torch.zeros(1, 3, image.shape[0], width)
    padded[..., :image.shape[1]] = torch.from_numpy(image.copy()).permute(2, 0, 1)
    return torch.nn.functional.avg_pool2d(padded, 8)


@pytest.mark.parametrize('width', [64, 96])
def test_mirrored_features_are_those_of_the_picture(width: int) -> None:
    """Mirrored back as docs/bevformer_v2.md says; padding in the batch counts for nothing."""
    plain, flipped = (AugmentViews((30, ), (0, 0, 80, 45), flip).transform(pictures())
                      for flip in (0.0, 1.0))
    columns = math.ceil(flipped['pad_shape'][1] / 8)
    for one, two in zip(plain['img'], flipped['img'], strict=True):
        wanted, got = features(one, width), features(two, width)
        got = torch.cat([got[..., :columns].flip(-1), got[..., columns:]], -1)
        assert torch.allclose(got, wanted)
        # As released: mirrored without padding, the content is shifted.
        early = np.zeros_like(one)
        early[:30, :53] = one[:30, 52::-1]
        shifted = features(early, width)[..., :columns].flip(-1)
        assert (shifted - wanted[..., :columns]).abs().mean() > 5


def test_one_draw_for_all_frames_and_cameras() -> None:
    np.random.seed(0)
    augment = AugmentViews(range(20, 45, 4), (0, 5, 80, 45), 0.5)
    drawn = set()
    for _ in range(20):
        results = pictures(18)
        results['img'] = [results['img'][0]] * 18
        results = augment.transform(results)
        assert len({image.tobytes() for image in results['img']}) == 1
        assert np.ptp(results['frame_cam2img'].reshape(18, -1), 0).max() == 0
        drawn.add((results['img_shape'], results['flip']))
    assert len(drawn) > 6


@pytest.mark.parametrize(('arguments', 'words'), [
    ({'heights': ()}, r'heights is not valid: got \[\]'),
    ({'heights': (0, )}, 'heights is not valid'),
    ({'heights': (1, ), 'crop': (0, 9, 5, 9)}, r'crop is not valid: got \(0, 9, 5, 9\)'),
    ({'heights': (1, ), 'crop': (-1, 0, 5, 9)}, 'crop is not valid'),
    ({'heights': (1, ), 'flip': 1.5}, 'flip is not valid: got 1.5')])
def test_arguments_of_views(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AugmentViews(**arguments)


def test_crop_beyond_the_picture() -> None:
    with pytest.raises(SampleError, match='picture 0.jpg.*got 80x45, expected at least 1600x900'):
        AugmentViews((640, )).transform(pictures())


def test_bev_augmentation_moves_boxes_as_its_matrix_moves_points() -> None:
    rng = np.random.default_rng(0)
    np.random.seed(0)
    augment, mirrored = AugmentBEV(), set()
    for _ in range(100):
        values = rng.uniform(-40, 40, (5, 9))
        values[:, 3:6] = rng.uniform(1, 5, (5, 3))
        values[:, 6] = rng.uniform(-math.pi, math.pi, 5)
        before = LiDARInstance3DBoxes(torch.tensor(values), box_dim=9)
        results = augment.transform({'gt_bboxes_3d': before.clone(), 'bda': np.eye(3)})
        after, bda = results['gt_bboxes_3d'], results['bda']
        turn = torch.tensor(bda, dtype=torch.float32)
        assert torch.allclose(after.gravity_center, before.gravity_center @ turn.T, atol=1e-4)
        # Corners as a set: mirroring changes their order.
        got, wanted = after.corners, before.corners @ turn.T
        nearest = torch.cdist(got, wanted).min(-1).values
        assert nearest.max() < 1e-3
        ahead = torch.stack([before.yaw.cos(), before.yaw.sin()], -1) @ turn[:2, :2].T
        assert torch.allclose(torch.nn.functional.normalize(ahead), torch.stack(
            [after.yaw.cos(), after.yaw.sin()], -1), atol=1e-4)
        assert torch.allclose(after.tensor[:, 7:], before.tensor[:, 7:] @ turn[:2, :2].T, atol=1e-4)
        factor = abs(np.linalg.det(bda)) ** (1 / 3)
        assert 0.95 <= factor <= 1.05 and bda[2, 2] == pytest.approx(factor)
        mirror = np.sign(np.diag(bda))
        mirrored.add(tuple(mirror[:2]))
        # What is left without the mirrors is a turn by at most 22.5 degrees.
        rotation = np.diag([*mirror[:2], 1]) @ bda / factor
        assert math.degrees(abs(math.atan2(rotation[1, 0], rotation[0, 0]))) <= 22.5
        assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert len(mirrored) == 4


def test_bev_augmentation_by_hand() -> None:
    box = LiDARInstance3DBoxes(torch.tensor([[10.0, 0, -1, 4, 2, 1, 0, 3, 0]]), box_dim=9)
    results = AugmentBEV((90, 90), (1, 1), 0, 1).transform({'gt_bboxes_3d': box, 'bda': np.eye(3)})
    assert np.allclose(results['bda'], [[0, -1, 0], [-1, 0, 0], [0, 0, 1]])
    wanted = [0, -10, -1, 4, 2, 1, -math.pi / 2, 0, -3]
    assert np.allclose(results['gt_bboxes_3d'].tensor[0], wanted, atol=1e-5)


@pytest.mark.parametrize(('arguments', 'words'), [
    ({'rotation': (3, -3)}, r'rotation is not valid: got \(3, -3\)'),
    ({'scale': (0, 1)}, 'scale is not valid.*positive'), ({'scale': (1, )}, 'scale is not valid'),
    ({'flip_y': -0.1}, 'flip_y is not valid')])
def test_arguments_of_the_bev_augmentation(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AugmentBEV(**arguments)


def boxes_of(count: int, **changes: Any) -> dict[str, np.ndarray]:
    """Perspective boxes in the middle of a picture of 80x45."""
    boxes = {'cameras': np.arange(count), 'labels': np.arange(count),
             'bboxes': np.tile([20.0, 10, 60, 30], (count, 1)),
             'quaternions': np.tile([1.0, 0, 0, 0], (count, 1)),
             'centers': np.tile([0.0, 0, 10], (count, 1)), 'sizes': np.ones((count, 3)),
             'attributes': np.zeros(count, np.int64), 'speeds': np.full(count, np.nan),
             'num_pts': np.full(count, 3), 'visibility': np.full(count, 0.2)}
    return boxes | {key: np.array(value) for key, value in changes.items()}


def test_targets_that_nobody_sees_are_left_out() -> None:
    boxes = boxes_of(
        6, num_pts=[3, 2, 3, 3, 3, 3], visibility=[0.2, 1, 0.19, 1, 1, 1],
        centers=[[0, 0, 10], [0, 0, 10], [0, 0, 10], [0, 0, -1], [0, 0, 10], [0, 0, 10]],
        bboxes=[[20.0, 10, 60, 30]] * 4 + [[20.0, 0, 60, 5], [-10.0, 0, 90, 20]])
    results = pictures(6) | {'perspective': boxes}
    results = AugmentViews((20, ), (0, 5, 80, 45), 1.0).transform(results)
    targets = PerspectiveTargets().transform(results)['gt_perspective']
    assert targets['cameras'].tolist() == [0, 5]
    assert targets['bboxes'].tolist() == [[10, 2.5, 30, 12.5], [0, 0, 40, 7.5]]
    more = PerspectiveTargets(2, 0.1).transform(results)['gt_perspective']
    assert more['labels'].tolist() == [0, 1, 2, 5]


def test_no_target_at_all() -> None:
    results = AugmentViews((20, ), (0, 5, 80, 45)).transform(
        pictures(6) | {'perspective': boxes_of(2, num_pts=[0, 0])})
    targets = PerspectiveTargets().transform(results)['gt_perspective']
    assert targets['bboxes'].shape == (0, 4) and targets['quaternions'].shape == (0, 4)
    assert targets['centers'].shape == targets['sizes'].shape == (0, 3)


def test_sample_is_packed_as_agreed(nuscenes_root: Path) -> None:
    np.random.seed(0)
    dataset = built(nuscenes_root, pipeline(flip=1.0), frames=(-1, 0))
    packed = dataset[1]
    image, sample = packed['inputs']['img'], packed['data_samples']
    assert image.shape == (12, 3, 160, 416) and image.dtype == torch.uint8
    meta, info = sample.metainfo, dataset.get_data_info(1)
    shapes = {'lidar2img': (2, 6, 4, 4), 'cam2img': (6, 3, 3), 'lidar2cam': (6, 4, 4),
              'bda': (3, 3)}
    for key, shape in shapes.items():
        assert meta[key].shape == shape and meta[key].dtype == np.float64, key
    assert meta['frames'] == (-1, 0) and meta['frame_valid'].tolist() == [True, True]
    assert meta['frame_valid'].dtype == bool and len(meta['frame_tokens']) == 2
    assert meta['flip'] is True and meta['img_shape'] == (160, 400)
    assert meta['pad_shape'] == (160, 416)
    assert (meta['sample_idx'], meta['token'], meta['scene_token'], meta['timestamp']) == (
        1, info['token'], info['scene_token'], info['timestamp'])
    padded = np.tile(np.eye(4), (6, 1, 1))
    padded[:, :3, :3] = meta['cam2img']
    assert np.allclose(meta['lidar2img'][1], padded @ meta['lidar2cam'])
    assert np.allclose(meta['lidar2cam'], [info['images'][name]['lidar2cam'] for name in CAMERAS])
    boxes = sample.gt_instances_3d
    assert boxes.bboxes_3d.tensor.shape == (len(boxes.labels_3d), 9)
    assert boxes.labels_3d.dtype == torch.int64
    targets = sample.gt_instances_perspective
    count = len(targets.labels)
    kinds = {'cameras': ((), torch.int64), 'bboxes': ((4, ), torch.float32),
             'labels': ((), torch.int64), 'quaternions': ((4, ), torch.float32),
             'centers': ((3, ), torch.float32), 'sizes': ((3, ), torch.float32),
             'attributes': ((), torch.int64), 'speeds': ((), torch.float32)}
    assert set(targets.keys()) == set(kinds) and count > 0
    for key, (shape, dtype) in kinds.items():
        assert targets[key].shape == (count, *shape) and targets[key].dtype == dtype, key
    # The centre of a box projects into its bounds.
    rows = torch.arange(count)
    matrices = torch.tensor(meta['cam2img'], dtype=torch.float32)[targets.cameras]
    pixels = (matrices @ targets.centers[..., None])[..., 0]
    pixels = pixels[:, :2] / pixels[:, 2:]
    within = (pixels > targets.bboxes[:, :2]) & (pixels < targets.bboxes[:, 2:])
    inner = ((targets.bboxes[:, :2] > 0) & (targets.bboxes[:, 2:] < torch.tensor([400, 160])))
    assert within[rows][inner.all(-1)].all() and inner.all(-1).sum() > 3


def test_batches_go_through_the_data_preprocessor(nuscenes_root: Path) -> None:
    dataset = built(nuscenes_root, pipeline(), frames=(-1, 0))
    larger = built(nuscenes_root, pipeline(heights=(192, )), frames=(-1, 0))
    preprocessor = MODELS.build({
        'type': 'Det3DDataPreprocessor', 'mean': [123.675, 116.28, 103.53],
        'std': [58.395, 57.12, 57.375], 'bgr_to_rgb': True, 'pad_size_divisor': 32})
    samples = [dataset[0], larger[1]]
    images = [sample['inputs']['img'].clone() for sample in samples]
    batch = preprocessor(pseudo_collate(samples))
    assert batch['inputs']['imgs'].shape == (2, 12, 3, 192, 480)
    first, second = batch['data_samples']
    assert first.pad_shape == (160, 416) and second.pad_shape == (192, 480)
    assert first.batch_input_shape == second.batch_input_shape == (192, 480)
    wanted = (images[0][7, [2, 1, 0]].float() - preprocessor.mean) / preprocessor.std
    assert torch.allclose(batch['inputs']['imgs'][0, 7, :, :160, :416], wanted)
    assert first.frame_valid.tolist() == [False, True]


def test_test_pipeline_needs_no_annotations(nuscenes_root: Path) -> None:
    steps = [{'type': 'LoadMultiFrameImages'}, {'type': 'AugmentViews', 'heights': (160, )},
             {'type': 'PackTemporalInputs'}]
    sample = built(nuscenes_root, steps, split='val', test_mode=True)[2]['data_samples']
    assert 'gt_instances_3d' not in sample and 'gt_instances_perspective' not in sample
    assert len(sample.eval_ann_info['gt_labels_3d']) == 18
    assert np.array_equal(sample.bda, np.eye(3)) and sample.flip is False


def test_packing_keeps_whole_numbers_and_shortens_others() -> None:
    results = AugmentViews((20, ), (0, 5, 80, 45)).transform(
        pictures(6) | {'perspective': boxes_of(2)})
    results = PerspectiveTargets().transform(results)
    results |= {'frame_lidar2cam': np.tile(np.eye(4), (1, 6, 1, 1)), 'frame_tokens': ['a'],
                'bda': np.eye(3)} | dict.fromkeys(
        ('ori_shape', 'sample_idx', 'token', 'scene_token', 'timestamp', 'box_type_3d',
         'box_mode_3d'))
    targets = PackTemporalInputs().transform(results)['data_samples'].gt_instances_perspective
    assert targets.cameras.tolist() == [0, 1] and torch.isnan(targets.speeds).all()
