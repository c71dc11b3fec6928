"""The data set: frames of a scene, classes, versions, subsets, filtering."""
from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
import pytest

pytest.importorskip('mmdet3d_custom')

from mmdet3d.datasets import NuScenesDataset
from mmdet3d.registry import DATASETS

from mmdcn.errors import UserError
from mmdet3d_custom.datasets import TemporalNuScenesDataset
from mmdet3d_custom.datasets.info_file import CAMERAS
from mmdet3d_custom.datasets.nuscenes import CLASSES
from tests.nuscenes_sets import FRAMES, INFOS, read_set


def test_it_is_registered() -> None:
    assert DATASETS.get('TemporalNuScenesDataset') is TemporalNuScenesDataset


def test_frames_are_of_the_scene_whatever_the_order_of_the_file(tilted_root: Path,
                                                                tmp_path: Path) -> None:
    content = mmengine.load(tilted_root / INFOS.format('train'))
    order = np.random.default_rng(0).permutation(len(content['data_list']))
    content['data_list'] = [content['data_list'][number] for number in order]
    path = tmp_path / 'shuffled.pkl'
    mmengine.dump(content, path)
    dataset = read_set(tilted_root, ann_file=str(path), frames=(-2, -1, 0, 1))
    by_place = {(info['scene_name'], info['frame_idx']): info for info in content['data_list']}
    valid = Counter()
    for index, info in enumerate(content['data_list']):
        results = dataset.collect_frames(index)
        assert results['frames'] == (-2, -1, 0, 1) and results['token'] == info['token']
        for frame, offset in enumerate(results['frames']):
            wanted = by_place.get((info['scene_name'], info['frame_idx'] + offset))
            assert results['frame_valid'][frame] == (wanted is not None)
            assert results['frame_tokens'][frame] == (wanted['token'] if wanted else '')
            paths = results['frame_paths'][frame]
            assert (paths is None) == (wanted is None)
            for camera, found in zip(CAMERAS, paths or (), strict=bool(paths)):
                name = wanted['images'][camera]['img_path']
                assert found == str(tilted_root / 'samples' / camera / name)
            valid[offset] += bool(wanted)
    assert [valid[offset] for offset in (-2, -1, 0, 1)] == [
        2 * (FRAMES - 2), 2 * (FRAMES - 1), 2 * FRAMES, 2 * (FRAMES - 1)]


def test_a_scene_of_one_sample_works(tilted_root: Path) -> None:
    dataset = read_set(tilted_root, frames=(-1, 0, 1), indices=[0])
    results = dataset.collect_frames(0)
    assert results['frame_valid'].tolist() == [False, True, False]
    for name in ('frame_cam2img', 'frame_lidar2cam'):
        assert results[name].dtype == np.float64 and results[name].shape[:2] == (3, 6)
        assert np.array_equal(results[name][0], results[name][1])


def test_what_is_dropped_is_no_history(tilted_root: Path) -> None:
    dataset = read_set(tilted_root, frames=(-1, 0))
    assert dataset.collect_frames(1)['frame_valid'].tolist() == [True, True]
    for subset in (dataset.get_subset([1, 2]), dataset):
        if subset is dataset:
            dataset.get_subset_([1, 2])
        assert len(subset) == 2
        assert subset.collect_frames(0)['frame_valid'].tolist() == [False, True]
        assert subset.collect_frames(1)['frame_valid'].tolist() == [True, True]
        # The metric looks samples up by their position in the file.
        assert [subset.get_data_info(index)['sample_idx'] for index in (0, 1)] == [1, 2]


@pytest.mark.parametrize('serialize', [True, False])
def test_pipelines_cannot_change_the_data_set(tilted_root: Path, serialize: bool) -> None:
    def spoil(results: dict[str, Any]) -> dict[str, Any]:
        results['perspective']['bboxes'] += 1
        results['ann_info']['gt_bboxes_3d'].scale(2)
        return results

    dataset = read_set(tilted_root, pipeline=[spoil], serialize_data=serialize, test_mode=False,
                       filter_empty_gt=False)
    first, second = (dataset[0] for _ in range(2))
    assert np.array_equal(first['perspective']['bboxes'], second['perspective']['bboxes'])
    assert np.array_equal(first['ann_info']['gt_bboxes_3d'].tensor,
                          second['ann_info']['gt_bboxes_3d'].tensor)


def test_labels_are_alphabetical(tilted_root: Path) -> None:
    dataset = read_set(tilted_root)
    assert dataset.metainfo['classes'] == CLASSES == tuple(sorted(CLASSES))
    assert dataset.metainfo['version'] == 'v1.0-mini'
    stock = NuScenesDataset(str(tilted_root), INFOS.format('train'),
                            modality={'use_camera': True, 'use_lidar': False})
    assert stock.metainfo['classes'] != CLASSES
    for index in range(len(dataset)):
        ours = dataset.get_data_info(index)
        theirs = stock.get_data_info(index)
        assert [CLASSES[label] for label in ours['ann_info']['gt_labels_3d']] == [
            stock.metainfo['classes'][label] for label in theirs['ann_info']['gt_labels_3d']]
        names = [stock.metainfo['classes'][box['label']] for camera in CAMERAS
                 for box in theirs['images'][camera]['mono_instances']]
        assert [CLASSES[label] for label in ours['perspective']['labels']] == names
        cameras = [number for number, camera in enumerate(CAMERAS)
                   for _ in theirs['images'][camera]['mono_instances']]
        assert ours['perspective']['cameras'].tolist() == cameras
    colours = dict(zip(stock.metainfo['classes'], stock.metainfo['palette'], strict=True))
    assert dataset.metainfo['palette'] == [colours[name] for name in CLASSES]


def test_fewer_classes(tilted_root: Path) -> None:
    dataset = read_set(tilted_root, metainfo={'classes': ('car', 'bus')})
    info = dataset.get_data_info(0)
    assert set(info['perspective']['labels']) <= {0, 1}
    assert len(info['perspective']['labels']) == len(info['perspective']['bboxes']) > 0
    assert set(info['ann_info']['gt_labels_3d']) == {0, 1, -1}


@pytest.mark.parametrize('frames', [(), (-1, ), (0, -1), (0, 0), (-0.5, 0)])
def test_frames_that_are_not_valid(tilted_root: Path, frames: tuple) -> None:
    with pytest.raises(ValueError, match='frames is not valid: got .*0 among them'):
        read_set(tilted_root, frames=frames)


def test_unknown_class(tilted_root: Path) -> None:
    with pytest.raises(UserError, match="metainfo.classes.*'traffic-cone'.*mean traffic_cone"):
        read_set(tilted_root, metainfo={'classes': ('car', 'traffic-cone')})


def test_version_must_be_that_of_the_file(tilted_root: Path) -> None:
    assert read_set(tilted_root, metainfo={'version': 'v1.0-mini'}).metainfo['version'] == \
        'v1.0-mini'
    with pytest.raises(UserError, match=r'got one of v1\.0-mini, expected v1\.0-trainval'):
        read_set(tilted_root, metainfo={'version': 'v1.0-trainval'})


def test_files_without_temporal_part_are_refused(tilted_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mmdet3d's own.*create_nuscenes_infos.py"):
        read_set(tilted_root, ann_file='nuscenes_infos_train.pkl')
    mmengine.dump({'infos': [], 'metadata': {}}, tmp_path / 'old.pkl')
    with pytest.raises(UserError, match=r'mmdet3d before 1\.0'):
        read_set(tilted_root, ann_file=str(tmp_path / 'old.pkl'))


def test_files_that_cannot_be_read_are_named(tilted_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='none.pkl.*does not exist; make it with tools/data'):
        read_set(tilted_root, ann_file='none.pkl')
    (tmp_path / 'short.pkl').write_bytes((tilted_root / INFOS.format('val')).read_bytes()[:1000])
    with pytest.raises(UserError, match='short.pkl is not valid: it cannot be read'):
        read_set(tilted_root, ann_file=str(tmp_path / 'short.pkl'))


def test_a_camera_is_missing(tilted_root: Path, tmp_path: Path) -> None:
    content = mmengine.load(tilted_root / INFOS.format('train'))
    del content['data_list'][1]['images']['CAM_BACK']
    mmengine.dump(content, tmp_path / 'five.pkl')
    with pytest.raises(UserError, match='has no CAM_BACK, expected all six cameras'):
        read_set(tilted_root, ann_file=str(tmp_path / 'five.pkl'))


class _Packed(dict):
    """What prepare_data looks at of a packed sample."""

    def __init__(self, boxes: int, targets: int | None) -> None:
        fields = {'gt_instances_3d': type('Boxes', (), {'labels_3d': [0] * boxes})}
        if targets is not None:
            fields['gt_instances_perspective'] = type('Boxes', (), {'labels': [0] * targets})
        sample = type('Sample', (), fields | {'__contains__': lambda _, name: name in fields})
        super().__init__(data_samples=sample())


@pytest.mark.parametrize(('boxes', 'targets', 'taken'), [
    (1, None, True), (1, 1, True), (0, 1, False), (1, 0, False), (0, None, False)])
def test_samples_without_targets_are_left_out_in_training(tilted_root: Path, boxes: int,
                                                          targets: int | None,
                                                          taken: bool) -> None:
    packed = _Packed(boxes, targets)
    for arguments, wanted in (({}, taken), ({'filter_empty_gt': False}, True),
                              ({'test_mode': True}, True)):
        dataset = read_set(tilted_root, pipeline=[lambda _: packed], **arguments)
        assert (dataset.prepare_data(0) is packed) == wanted


def test_boxes_without_points_are_left_out(tilted_root: Path) -> None:
    dataset = read_set(tilted_root)
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        assert len(info['instances']) == 19 and len(info['ann_info']['gt_labels_3d']) == 18


def test_sweeps_are_kept_for_lidar_alone(tilted_root: Path) -> None:
    both = read_set(tilted_root, modality={'use_camera': True, 'use_lidar': True})
    assert 'lidar_sweeps' in both.get_data_info(1)
    assert 'lidar_sweeps' not in read_set(tilted_root).get_data_info(1)


def test_samples_are_found_by_token(tilted_root: Path) -> None:
    dataset = read_set(tilted_root)
    tokens = [dataset.get_data_info(index)['token'] for index in range(len(dataset))]
    assert [dataset.find_sample(token) for token in tokens] == list(range(len(dataset)))
    dataset.get_subset_([2])
    assert dataset.find_sample(tokens[2]) == 0
    with pytest.raises(UserError, match=f'got {tokens[0]}.*{tokens[2]}'):
        dataset.find_sample(tokens[0])
