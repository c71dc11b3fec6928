"""Info files of nuScenes with what a temporal camera model needs.

mmdet3d's own info file is made where it is absent, with mmdet3d's converter, and copied with more
keys into a second one, a superset that every data set of mmdet3d reads as well. The devkit is
needed here only, not in training.

What is added to each sample, list order kept (the metric finds samples by their position):

- ``scene_token``, ``scene_name``, ``frame_idx`` (position in the scene), ``prev`` and ``next``
  (sample tokens, ``''`` at the ends);
- ``lidar2global``: 4x4 nested lists in double precision; mmdet3d's ``ego2global`` is rounded to
  a tenth of a millimetre where the city is two kilometres wide;
- in ``images``, per camera: ``height``, ``width``, and ``mono_instances``: boxes of the devkit
  for the camera's own time and pose, as dicts of ``bbox`` (x1 y1 x2 y2, hull of the projected
  corners within the picture), ``quat_wxyz``, ``xyz`` (gravity center) and ``wlh`` in the camera
  frame, ``label`` (in the order of mmdet3d's classes), ``attr_id`` (0..2, 3 where there is none),
  ``speed`` (m/s, NaN if unknown), ``num_pts`` (LiDAR and radar), ``visibility`` (share of the
  hull's area within the picture) and ``token`` (of the annotation).
"""
from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import mmdet3d
import mmengine
import numpy as np
from mmdet3d.datasets import NuScenesDataset
from mmdet3d.datasets.convert_utils import NuScenesNameMapping
from nuscenes.nuscenes import NuScenes
from nuscenes.utils import splits as official_splits
from nuscenes.utils.geometry_utils import BoxVisibility, transform_matrix, view_points
from pyquaternion import Quaternion

from mmdcn.checkpoints.plain_pickles import read_pickle
from mmdcn.data.checks import shorten
from mmdcn.errors import UserError
from mmdcn.writing import whole_file

CAMERAS = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT',
           'CAM_BACK_RIGHT')
"""In the order that published BEVFormers embed them."""

ATTRIBUTES = {
    'vehicle.moving': 0, 'vehicle.parked': 1, 'vehicle.stopped': 2,
    'pedestrian.moving': 0, 'pedestrian.standing': 1, 'pedestrian.sitting_lying_down': 2,
    'cycle.with_rider': 0, 'cycle.without_rider': 1}
NO_ATTRIBUTE = 3

TOOL = 'tools/data/create_nuscenes_infos.py'
_MARK = 'mmdcn_temporal'
_SPLITS = {
    'v1.0-trainval': {'train': official_splits.train, 'val': official_splits.val},
    'v1.0-mini': {'train': official_splits.mini_train, 'val': official_splits.mini_val},
    'v1.0-test': {'test': official_splits.test}}
_TABLES = ('category', 'attribute', 'visibility', 'instance', 'sensor', 'calibrated_sensor',
           'ego_pose', 'log', 'scene', 'sample', 'sample_data', 'sample_annotation', 'map')


def create_info_files(root: str | Path, version: str = 'v1.0-trainval', prefix: str = 'nuscenes',
                      quiet: bool = False) -> dict[str, Path]:
    """Write the temporal info files of a nuScenes folder.

    Args:
        root: Folder with ``VERSION/*.json``, ``maps`` and ``samples``.
        version: ``v1.0-trainval``, ``v1.0-mini`` or ``v1.0-test``.
        prefix: mmdet3d's files are ``PREFIX_infos_SPLIT.pkl``, used where they exist and made where
            not; those written here are ``PREFIX_infos_temporal_SPLIT.pkl``.
        quiet: Do not tell what the devkit and the converter do.

    Returns:
        The written file of each split, ``train`` and ``val``, or ``test``. Each is whole or absent.

    Raises:
        UserError: Tables or files are missing, scenes belong to another version, or an info file
            that is there is of the old convention or of another version.
    """
    root = Path(root)
    check_root(root, version)
    official = {split: root / f'{prefix}_infos_{split}.pkl' for split in _SPLITS[version]}
    with _told(quiet):
        if not all(path.exists() for path in official.values()):
            _make_official(root.resolve(), version, prefix, list(official))
        contents = {split: _read_official(path, version) for split, path in official.items()}
        devkit = NuScenes(version=version, dataroot=str(root), verbose=not quiet)
    written = {}
    for split, content in contents.items():
        add_temporal(content, devkit, official[split])
        written[split] = root / f'{prefix}_infos_temporal_{split}.pkl'
        with whole_file(written[split]) as part:
            mmengine.dump(_plain(content), part, file_format='pkl')
    return written


def _plain(value: Any) -> Any:
    """Content without NumPy's numbers, of which mmdet3d's files hold many: it is read at once."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def check_root(root: Path, version: str) -> None:
    """See that a folder holds the tables of a version of nuScenes and that its scenes fit.

    Raises:
        UserError: Something is missing, or a scene is in no split of the version.
    """
    if version not in _SPLITS:
        raise UserError('version', f'got {version!r}', f'one of {", ".join(_SPLITS)}')
    folder = root / version
    missing = [name for name in _TABLES if not (folder / f'{name}.json').is_file()]
    if missing:
        others = sorted(path.name for path in root.glob('v1.0-*')) if root.is_dir() else []
        found = f'it lacks {shorten([f"{version}/{name}.json" for name in missing])}'
        remedy = 'unpack the metadata archive there'
        if others and not folder.is_dir():
            remedy = f'it holds {shorten(others)}: give that as `version`'
        raise UserError(f'nuScenes folder {root}', found, 'the 13 tables of the version', remedy)
    for name in ('samples', 'maps'):
        if not (root / name).is_dir():
            raise UserError(f'nuScenes folder {root}', f'it lacks the folder {name}',
                            remedy='unpack the archives of the set there')
    known = {name for names in _SPLITS[version].values() for name in names}
    strange = [scene['name'] for scene in mmengine.load(folder / 'scene.json')
               if scene['name'] not in known]
    if strange:
        raise UserError('version', f'got {version!r}, whose splits do not hold the scenes '
                        f'{shorten(strange)}', 'tables and version of one another',
                        'the converter would take them for validation')


def check_info(content: Any, path: str | Path) -> None:
    """See that what was read from an info file is of mmdet3d 1.0 or later.

    Raises:
        UserError: It is of the old convention or no info file.
    """
    if isinstance(content, dict) and 'data_list' in content and 'metainfo' in content:
        return
    if isinstance(content, dict) and 'infos' in content or isinstance(content, list):
        raise UserError(f'info file {path}', 'got one of mmdet3d before 1.0 (a list under '
                        '`infos`), whose boxes turn the other way',
                        'one with `data_list` and `metainfo`',
                        f'move it away and make a new one with {TOOL}')
    raise UserError(f'info file {path}', f'got a {type(content).__name__} that is no info file',
                    remedy=f'make one with {TOOL}')


def check_temporal(content: Any, path: str | Path) -> None:
    """As :func:`check_info`, and see that the file has the temporal part.

    Raises:
        UserError: Also where it is mmdet3d's own file.
    """
    check_info(content, path)
    if _MARK not in content['metainfo']:
        raise UserError(f'info file {path}', "got mmdet3d's own, which has no scenes and no "
                        'perspective targets', 'a temporal info file (*_infos_temporal_*.pkl)',
                        f'make it with {TOOL}')


class _PlainUnpickler(pickle.Unpickler):
    """Numbers, text, lists and dicts only, in C: with no class to be had a file can do nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise _HoldsMore


class _HoldsMore(Exception):
    """A pickle that needs the reader of arrays, in Python and much slower."""


def read_info(path: str | Path) -> Any:
    """What an info file holds, not yet checked: plain data and arrays, never other objects.

    Raises:
        UserError: It does not exist, is damaged, or holds objects, which could run any code.
    """
    try:
        with open(path, 'rb') as file:
            try:
                return _PlainUnpickler(file).load()
            except _HoldsMore:
                file.seek(0)
                return read_pickle(file)
    except FileNotFoundError as error:
        raise UserError(f'info file {path}', 'it does not exist',
                        remedy=f'make it with {TOOL}, or correct data_root and ann_file') from error
    except Exception as error:  # pickle raises whatever a damaged file makes it raise
        raise UserError(f'info file {path}', f'it cannot be read ({error})',
                        remedy=f'move it away and make a new one with {TOOL}') from error


def _read_official(path: Path, version: str) -> dict[str, Any]:
    content = read_info(path)
    check_info(content, path)
    found = content['metainfo'].get('version')
    if found != version:
        raise UserError(f'info file {path}', f'got one of {found}', version,
                        'give that version, or another prefix for its files')
    return content


@contextlib.contextmanager
def _told(quiet: bool) -> Iterator[None]:
    """Let the devkit and the converter tell what they do, or keep them still.

    Progress bars know the stream that was there when mmengine was imported, hence the patch.
    """
    if not quiet:
        yield
        return
    with (contextlib.redirect_stdout(io.StringIO()),
          mock.patch.object(mmengine, 'track_iter_progress', iter)):
        yield


@contextlib.contextmanager
def _within(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _converter(name: str) -> ModuleType:
    """A script of mmdet3d's, which its wheel carries outside of the package's modules."""
    path = Path(mmdet3d.__file__).parent / '.mim' / 'tools' / 'dataset_converters' / f'{name}.py'
    if not path.is_file():
        raise UserError('mmdet3d', f'it lacks {path.name}, the converter of its wheel',
                        remedy='install it from its wheel, or make the info files with its own '
                               'create_data.py')
    spec = importlib.util.spec_from_file_location(f'mmdet3d_{name}', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _make_official(root: Path, version: str, prefix: str, names: list[str]) -> None:
    """Make mmdet3d's info files; existing ones stay as they are."""
    # The converter opens ./data/nuscenes whatever it is told, and writes into the root over what is
    # there: it sees a folder of links.
    with tempfile.TemporaryDirectory() as scratch:
        links = Path(scratch) / 'data' / 'nuscenes'
        links.mkdir(parents=True)
        for entry in root.iterdir():
            if entry.is_dir():
                (links / entry.name).symlink_to(entry, target_is_directory=True)
        try:
            with _within(scratch):
                place = './data/nuscenes'
                _converter('nuscenes_converter').create_nuscenes_infos(
                    place, prefix, version=version)
                update = _converter('update_infos_to_v2').update_nuscenes_infos
                for name in names:
                    update(f'{place}/{prefix}_infos_{name}.pkl', place)
        except FileNotFoundError as error:
            raise UserError(f'nuScenes folder {root}', f'a file of its tables is missing: {error}',
                            remedy='unpack all archives of the set there') from error
        for name in names:
            target = root / f'{prefix}_infos_{name}.pkl'
            if not target.exists():
                with whole_file(target) as part:
                    shutil.copyfile(links / target.name, part)


def add_temporal(content: dict[str, Any], devkit: NuScenes, path: str | Path) -> None:
    """Add the temporal part to the content of mmdet3d's info file, in place.

    Args:
        content: As mmdet3d wrote it.
        devkit: The tables of its version.
        path: Of the file, for messages.

    Raises:
        UserError: It holds samples that the tables lack.
    """
    known = {sample['token'] for sample in devkit.sample}
    strange = [info['token'] for info in content['data_list'] if info['token'] not in known]
    if strange:
        raise UserError(f'info file {path}', f'it holds {len(strange)} samples that are not in '
                        f'the tables of {devkit.version}', 'a file of these tables',
                        'move it away; a new one is made')
    positions = _positions(devkit)
    for info in content['data_list']:
        sample = devkit.get('sample', info['token'])
        scene = devkit.get('scene', sample['scene_token'])
        info.update(scene_token=scene['token'], scene_name=scene['name'],
                    frame_idx=positions[info['token']], prev=sample['prev'], next=sample['next'],
                    lidar2global=_sensor_to_global(devkit, sample['data']['LIDAR_TOP']).tolist())
        speeds = {token: float(np.linalg.norm(devkit.box_velocity(token)[:2]))
                  for token in sample['anns']}
        for camera, image in info['images'].items():
            record = devkit.get('sample_data', sample['data'][camera])
            image.update(height=record['height'], width=record['width'],
                         mono_instances=_mono_instances(devkit, record, speeds))
    content['metainfo'][_MARK] = 1


def _positions(devkit: NuScenes) -> dict[str, int]:
    """Position of each sample in its scene."""
    found = {}
    for scene in devkit.scene:
        token, position = scene['first_sample_token'], 0
        while token:
            found[token] = position
            token, position = devkit.get('sample', token)['next'], position + 1
    return found


def _sensor_to_global(devkit: NuScenes, token: str) -> np.ndarray:
    """4x4 pose in the world of the sensor of a sample data record."""
    record = devkit.get('sample_data', token)
    matrix = np.eye(4)
    for table in ('ego_pose', 'calibrated_sensor'):
        pose = devkit.get(table, record[f'{table}_token'])
        matrix = matrix @ transform_matrix(pose['translation'], Quaternion(pose['rotation']))
    return matrix


def _mono_instances(devkit: NuScenes, record: dict[str, Any],
                    speeds: dict[str, float]) -> list[dict[str, Any]]:
    """Boxes that a camera sees, see the head of this module.

    As in the released code: at least one corner is in the picture and more than 1 m deep, and all
    are more than 0.1 m before the camera.
    """
    _, boxes, matrix = devkit.get_sample_data(record['token'], box_vis_level=BoxVisibility.ANY)
    limits = np.array([record['width'], record['height']], float)
    found = []
    for box in boxes:
        name = NuScenesNameMapping.get(box.name)
        if name is None:
            continue
        corners = view_points(box.corners(), matrix, normalize=True)[:2]
        low, high = corners.min(1), corners.max(1)
        inner_low, inner_high = np.clip(low, 0, limits), np.clip(high, 0, limits)
        annotation = devkit.get('sample_annotation', box.token)
        found.append({
            'bbox': [*inner_low.tolist(), *inner_high.tolist()],
            'quat_wxyz': box.orientation.elements.tolist(), 'xyz': box.center.tolist(),
            'wlh': box.wlh.tolist(), 'label': NuScenesDataset.METAINFO['classes'].index(name),
            'attr_id': _attribute(devkit, annotation), 'speed': speeds[box.token],
            'num_pts': annotation['num_lidar_pts'] + annotation['num_radar_pts'],
            'visibility': float(np.prod(inner_high - inner_low) / np.prod(high - low)),
            'token': box.token})
    return found


def _attribute(devkit: NuScenes, annotation: dict[str, Any]) -> int:
    for token in annotation['attribute_tokens']:
        return ATTRIBUTES.get(devkit.get('attribute', token)['name'], NO_ATTRIBUTE)
    return NO_ATTRIBUTE
