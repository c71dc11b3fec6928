"""The temporal info file: what it adds, that nothing is lost, and what is refused."""
from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('mmdet3d_custom')

import mmengine
from mmdet3d.datasets import NuScenesDataset
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.geometry_utils import BoxVisibility
from pyquaternion import Quaternion

from mmdcn.errors import UserError
from mmdet3d_custom.datasets import info_file
from mmdet3d_custom.datasets.info_file import CAMERAS, check_info, check_root, create_info_files
from tests.nuscenes_sets import FRAMES, INFOS


@pytest.fixture(scope='module')
def devkit(tilted_root: Path) -> NuScenes:
    return NuScenes('v1.0-mini', str(tilted_root), verbose=False)


def infos(root: Path, split: str = 'train') -> list[dict]:
    return mmengine.load(root / INFOS.format(split))['data_list']


@pytest.fixture
def copy(tilted_root: Path, tmp_path: Path) -> Path:
    """A folder that tests may change: tables are copied, sensor data linked."""
    root = tmp_path / 'set'
    root.mkdir()
    shutil.copytree(tilted_root / 'v1.0-mini', root / 'v1.0-mini')
    for name in ('maps', 'samples'):
        (root / name).symlink_to(tilted_root / name)
    for path in tilted_root.glob('*.pkl'):
        shutil.copy(path, root)
    return root


@pytest.mark.parametrize('split', ['train', 'val'])
def test_it_is_a_superset_in_the_same_order(tilted_root: Path, split: str) -> None:
    official = mmengine.load(tilted_root / f'nuscenes_infos_{split}.pkl')
    ours = mmengine.load(tilted_root / INFOS.format(split))
    assert official['metainfo'].items() < ours['metainfo'].items()
    assert len(official['data_list']) == len(ours['data_list']) == 2 * FRAMES
    for old, new in zip(official['data_list'], ours['data_list'], strict=True):
        assert old['images'].keys() == new['images'].keys()
        for camera, image in old['images'].items():
            assert info_file._plain(image).items() < new['images'][camera].items()
        for key in old.keys() - {'images'}:
            # As text, in which NaN is equal to itself; NumPy's numbers have become Python's.
            assert json.dumps(info_file._plain(old[key])) == json.dumps(new[key])


def test_stock_data_set_reads_it(tilted_root: Path) -> None:
    dataset = NuScenesDataset(str(tilted_root), INFOS.format('train'),
                              modality={'use_camera': True, 'use_lidar': False})
    assert len(dataset) == 2 * FRAMES
    assert len(dataset.get_data_info(0)['ann_info']['gt_labels_3d']) == 18


def test_scenes_and_neighbours(tilted_root: Path, devkit: NuScenes) -> None:
    for info in infos(tilted_root):
        sample = devkit.get('sample', info['token'])
        scene = devkit.get('scene', sample['scene_token'])
        assert (info['scene_token'], info['scene_name']) == (scene['token'], scene['name'])
        assert (info['prev'], info['next']) == (sample['prev'], sample['next'])
        token, behind = info['token'], 0
        while devkit.get('sample', token)['prev']:
            token, behind = devkit.get('sample', token)['prev'], behind + 1
        assert info['frame_idx'] == behind


def test_pose_is_exact(tilted_root: Path, devkit: NuScenes) -> None:
    for info in infos(tilted_root):
        got = np.array(info['lidar2global'])
        rounded = np.array(info['ego2global']) @ np.array(info['lidar_points']['lidar2ego'])
        assert np.abs(got - rounded).max() < 1e-3
        assert np.abs(got[:3, :3] @ got[:3, :3].T - np.eye(3)).max() < 1e-12


def test_perspective_boxes_equal_those_of_the_devkit(tilted_root: Path, devkit: NuScenes) -> None:
    seen = 0
    for info in infos(tilted_root):
        for camera in CAMERAS:
            image = info['images'][camera]
            _, boxes, matrix = devkit.get_sample_data(image['sample_data_token'],
                                                      BoxVisibility.ANY)
            assert [box.token for box in boxes] == [
                found['token'] for found in image['mono_instances']]
            for box, found in zip(boxes, image['mono_instances'], strict=True):
                assert np.allclose(found['xyz'], box.center) and np.allclose(found['wlh'], box.wlh)
                assert Quaternion.absolute_distance(Quaternion(found['quat_wxyz']),
                                                    box.orientation) < 1e-9
                pixels = matrix @ box.corners()
                pixels = pixels[:2] / pixels[2]
                hull = np.clip(pixels, 0, [[1600], [900]])
                assert np.allclose(found['bbox'], [*hull.min(1), *hull.max(1)])
                assert found['visibility'] == pytest.approx(
                    np.prod(np.ptp(hull, 1)) / np.prod(np.ptp(pixels, 1)))
                seen += 0.05 < found['visibility'] < 0.95
    assert seen > 3, 'some boxes reach beyond the picture'


def test_perspective_boxes_know_class_attribute_speed_and_points(tilted_root: Path,
                                                                 devkit: NuScenes) -> None:
    kept = set()
    for info in infos(tilted_root):
        for image in info['images'].values():
            assert (image['width'], image['height']) == (1600, 900)
            for found in image['mono_instances']:
                record = devkit.get('sample_annotation', found['token'])
                name = NuScenesDataset.METAINFO['classes'][found['label']]
                assert name.split('_')[0] in record['category_name'] or name == 'traffic_cone'
                assert found['num_pts'] == record['num_lidar_pts']
                velocity = devkit.box_velocity(found['token'])
                assert found['speed'] == pytest.approx(math.hypot(*velocity[:2]))
                moves = found['speed'] > 0.1
                if name in ('barrier', 'traffic_cone'):
                    assert found['attr_id'] == 3
                elif name == 'bus':
                    assert found['attr_id'] == (0 if moves else 2)
                else:
                    assert found['attr_id'] == (0 if moves else 1)
                kept.add(found['attr_id'])
    assert kept >= {0, 1, 3}


def test_speed_of_a_single_annotation_is_unknown(copy: Path) -> None:
    path = copy / 'v1.0-mini' / 'sample_annotation.json'
    table = json.loads(path.read_text())
    for record in table:
        record['prev'] = record['next'] = ''
    path.write_text(json.dumps(table))
    written = create_info_files(copy, 'v1.0-mini', quiet=True)
    assert all(math.isnan(found['speed']) for info in mmengine.load(written['val'])['data_list']
               for image in info['images'].values() for found in image['mono_instances'])


def test_existing_official_file_is_used_and_kept(copy: Path) -> None:
    path = copy / 'nuscenes_infos_val.pkl'
    content = mmengine.load(path)
    content['data_list'] = content['data_list'][::-1]
    mmengine.dump(content, path)
    before = path.read_bytes()
    written = create_info_files(copy, 'v1.0-mini', quiet=True)
    assert path.read_bytes() == before
    assert [info['token'] for info in mmengine.load(written['val'])['data_list']] == [
        info['token'] for info in content['data_list']]


def test_absent_official_file_is_made_beside_the_other(copy: Path, tilted_root: Path) -> None:
    before = (copy / 'nuscenes_infos_train.pkl').read_bytes()
    (copy / 'nuscenes_infos_val.pkl').unlink()
    create_info_files(copy, 'v1.0-mini', quiet=True)
    assert (copy / 'nuscenes_infos_train.pkl').read_bytes() == before
    for name in ('nuscenes_infos_val.pkl', INFOS.format('val')):
        assert (copy / name).read_bytes() == (tilted_root / name).read_bytes()
    assert sorted(path.name for path in copy.iterdir()) == sorted(
        path.name for path in tilted_root.iterdir())


@pytest.mark.parametrize(('content', 'words'), [
    ({'infos': [], 'metadata': {'version': 'v1.0-mini'}},
     r'mmdet3d before 1\.0.*`infos`.*create_nuscenes_infos\.py'),
    ([], r'mmdet3d before 1\.0'), ({'a': 1}, 'a dict that is no info file')])
def test_old_files_are_refused_and_kept(copy: Path, content: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_info(content, 'x.pkl')
    path, ours = copy / 'nuscenes_infos_train.pkl', copy / INFOS.format('train')
    mmengine.dump(content, path)
    before = path.read_bytes(), ours.read_bytes()
    with pytest.raises(UserError, match=words):
        create_info_files(copy, 'v1.0-mini', quiet=True)
    assert (path.read_bytes(), ours.read_bytes()) == before


@pytest.mark.parametrize(('change', 'words'), [
    (lambda content: content['metainfo'].update(version='v1.0-trainval'),
     r'got one of v1\.0-trainval, expected v1\.0-mini'),
    (lambda content: content['data_list'][0].update(token='0'),
     '1 samples that are not in the tables of v1.0-mini')])
def test_files_of_another_set_are_refused(copy: Path, change, words: str) -> None:
    path = copy / 'nuscenes_infos_train.pkl'
    content = mmengine.load(path)
    change(content)
    mmengine.dump(content, path)
    with pytest.raises(UserError, match=words):
        create_info_files(copy, 'v1.0-mini', quiet=True)


def test_damaged_file_is_refused(copy: Path) -> None:
    (copy / 'nuscenes_infos_train.pkl').write_bytes(b'x')
    with pytest.raises(UserError, match='nuscenes_infos_train.pkl.*cannot be read'):
        create_info_files(copy, 'v1.0-mini', quiet=True)


def test_missing_sensor_files_are_named_and_nothing_is_written(copy: Path) -> None:
    (copy / 'samples').unlink()
    (copy / 'samples').mkdir()
    for path in copy.glob('*.pkl'):
        path.unlink()
    with pytest.raises(UserError, match=r'missing: .*LIDAR_TOP.*unpack all archives'):
        create_info_files(copy, 'v1.0-mini', quiet=True)
    assert not list(copy.glob('*.pkl'))


def test_folders_without_tables_are_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='version is not valid: got .*v2.*one of v1.0-trainval'):
        check_root(copy, 'v2')
    with pytest.raises(UserError, match='v1.0-trainval/category.json.*it holds v1.0-mini: give'):
        check_root(copy, 'v1.0-trainval')
    with pytest.raises(UserError, match='lacks v1.0-mini/category.json.*unpack the metadata'):
        check_root(tmp_path / 'nowhere', 'v1.0-mini')
    (copy / 'v1.0-mini' / 'log.json').unlink()
    with pytest.raises(UserError, match='lacks v1.0-mini/log.json,'):
        check_root(copy, 'v1.0-mini')


def test_folders_without_sensors_are_refused(copy: Path) -> None:
    (copy / 'maps').unlink()
    with pytest.raises(UserError, match='lacks the folder maps'):
        check_root(copy, 'v1.0-mini')


def test_scenes_of_another_version_are_refused(copy: Path) -> None:
    path = copy / 'v1.0-mini' / 'scene.json'
    path.write_text(path.read_text().replace('scene-0061', 'scene-0001'))
    with pytest.raises(UserError, match=r"'v1\.0-mini', whose splits do not hold .*scene-0001"):
        check_root(copy, 'v1.0-mini')
    (copy / 'v1.0-mini').rename(copy / 'v1.0-trainval')
    with pytest.raises(UserError, match="'v1.0-trainval', whose splits do not hold"):
        # scene-0061 and its neighbours are in v1.0-trainval as well, but not all of these.
        path = copy / 'v1.0-trainval' / 'scene.json'
        path.write_text(path.read_text().replace('scene-0553', 'scene-9999'))
        check_root(copy, 'v1.0-trainval')


def test_converter_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch,
                                              tmp_path: Path) -> None:
    monkeypatch.setattr(info_file.mmdet3d, '__file__', str(tmp_path / '__init__.py'))
    with pytest.raises(UserError, match=r'lacks nuscenes_converter\.py'):
        info_file._converter('nuscenes_converter')


def test_a_file_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / 'infos.pkl'
    path.write_bytes(b'cos\nsystem\n(S"touch ' + bytes(tmp_path / 'ran') + b'"\ntR.')
    with pytest.raises(UserError, match=r'cannot be read \(.*(os|posix)\.system'):
        info_file.read_info(path)
    assert not (tmp_path / 'ran').exists()


def test_temporal_files_are_plain_and_official_ones_readable(tilted_root: Path) -> None:
    with (tilted_root / INFOS.format('train')).open('rb') as file:
        plain = info_file._PlainUnpickler(file).load()
    assert plain['metainfo']['version'] == 'v1.0-mini'
    official = info_file.read_info(tilted_root / 'nuscenes_infos_train.pkl')
    assert len(official['data_list']) == len(plain['data_list'])
