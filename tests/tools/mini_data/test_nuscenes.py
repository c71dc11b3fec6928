"""The mini nuScenes set: tables as the devkit wants them, jobs, counts, the tool."""
from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.nuscenes_sets import FRAMES
from tools.mini_data import nuscenes
from tools.mini_data.nuscenes_world import CAMERAS, LIDAR, make_world


@pytest.fixture(scope='module')
def tables(nuscenes_root: Path) -> dict[str, list[dict]]:
    return {path.stem: json.loads(path.read_text())
            for path in (nuscenes_root / 'v1.0-mini').iterdir()}


def test_all_tables_are_there(tables: dict[str, list[dict]]) -> None:
    counts = {name: len(rows) for name, rows in tables.items()}
    samples, sensors, things = 4 * FRAMES, 7, 19
    assert counts == {
        'category': 10, 'attribute': 8, 'visibility': 4, 'sensor': sensors, 'log': 4, 'scene': 4,
        'map': 1, 'calibrated_sensor': 4 * sensors, 'sample': samples,
        'ego_pose': samples * sensors, 'sample_data': samples * sensors, 'instance': 4 * things,
        'sample_annotation': samples * things}


def test_tokens_are_unique_and_references_exist(tables: dict[str, list[dict]]) -> None:
    by_token = {name: {row['token'] for row in rows} for name, rows in tables.items()}
    for name, rows in tables.items():
        assert len(by_token[name]) == len(rows), name
    for row in (row for rows in tables.values() for row in rows):
        for key, value in row.items():
            kind = key.removesuffix('_tokens').removesuffix('_token')
            if key == 'visibility_token' or kind == key or value in ('', []):
                continue
            kind = {'first_sample': 'sample', 'last_sample': 'sample',
                    'first_annotation': 'sample_annotation',
                    'last_annotation': 'sample_annotation'}.get(kind, kind)
            assert set(value if isinstance(value, list) else [value]) <= by_token[kind], key


@pytest.mark.parametrize('name', ['sample', 'sample_data', 'sample_annotation'])
def test_chains_are_whole(tables: dict[str, list[dict]], name: str) -> None:
    rows = {row['token']: row for row in tables[name]}
    starts = [row for row in rows.values() if not row['prev']]
    seen = 0
    for row in starts:
        length = 1
        while row['next']:
            assert rows[row['next']]['prev'] == row['token']
            row, length = rows[row['next']], length + 1
        assert length == FRAMES
        seen += length
    assert seen == len(rows)


def test_files_are_those_of_the_tables(nuscenes_root: Path, tables: dict[str, list[dict]]) -> None:
    named = {row['filename'] for row in tables['sample_data']}
    found = {path.relative_to(nuscenes_root).as_posix()
             for path in (nuscenes_root / 'samples').rglob('*') if path.is_file()}
    assert named == found
    for row in tables['sample_data']:
        if row['fileformat'] == 'jpg':
            with Image.open(nuscenes_root / row['filename']) as picture:
                assert picture.size == (row['width'], row['height']) == (1600, 900)


def test_attributes_fit_motion(tables: dict[str, list[dict]]) -> None:
    names = {row['token']: row['name'] for row in tables['attribute']}
    times = {row['token']: row['timestamp'] for row in tables['sample']}
    rows = {row['token']: row for row in tables['sample_annotation']}
    for row in rows.values():
        assert len(row['attribute_tokens']) <= 1
        if row['next'] and row['attribute_tokens']:
            following = rows[row['next']]
            step = np.subtract(following['translation'], row['translation'])
            seconds = (times[following['sample_token']] - times[row['sample_token']]) / 1e6
            name = names[row['attribute_tokens'][0]]
            assert (np.linalg.norm(step) / seconds > 0.2) == name.endswith(('moving', 'with_rider'))


def test_points_are_counted_as_they_lie_in_the_file(nuscenes_root: Path,
                                                    tables: dict[str, list[dict]]) -> None:
    scans = {row['sample_token']: row['filename'] for row in tables['sample_data']
             if row['fileformat'] == 'pcd'}
    sample = tables['sample'][FRAMES + 1]
    world = make_world(0, 'train', 1)
    points = np.fromfile(nuscenes_root / scans[sample['token']], np.float32).reshape(-1, 5)
    to_world = world.sensor_to_world(1, LIDAR)
    places = points[:, :3] @ to_world[:3, :3].T + to_world[:3, 3]
    counts = []
    for thing in world.things:
        own = (places - thing.pose(0.5)[:3, 3]) @ thing.pose(0.5)[:3, :3]
        half = np.array([thing.size[1], thing.size[0], thing.size[2]]) / 2
        counts.append(int((np.abs(own) < half).all(-1).sum()))
    assert counts == [row['num_lidar_pts'] for row in tables['sample_annotation']
                      if row['sample_token'] == sample['token']]


def test_devkit_agrees_with_the_world(nuscenes_root: Path) -> None:
    NuScenes = pytest.importorskip('nuscenes.nuscenes').NuScenes
    devkit = NuScenes('v1.0-mini', str(nuscenes_root), verbose=False)
    world = make_world(0, 'val', 0)
    sample = next(row for row in devkit.sample
                  if devkit.get('scene', row['scene_token'])['name'] == world.name and row['prev'])
    for camera in CAMERAS:
        _, boxes, matrix = devkit.get_sample_data(sample['data'][camera], box_vis_level=2)
        from_world = np.linalg.inv(world.sensor_to_world(1, camera))
        assert matrix.shape == (3, 3) and len(boxes) == len(world.things)
        for box, thing in zip(boxes, world.things, strict=True):
            wanted = from_world @ thing.pose(0.5)
            assert np.allclose(box.center, wanted[:3, 3])
            assert np.allclose(box.rotation_matrix, wanted[:3, :3])
            assert np.allclose(box.wlh, thing.size)
    for token, thing in zip(sample['anns'], world.things, strict=True):
        assert np.linalg.norm(devkit.box_velocity(token)) == pytest.approx(thing.speed, abs=1e-6)


@pytest.mark.parametrize(('scale', 'frames'), [(0.01, 2), (0.5, 3), (1, 6), (3, 6)])
def test_plan_holds_every_picture_once(scale: float, frames: int) -> None:
    jobs = nuscenes.plan(0, scale)
    assert len(set(jobs)) == len(jobs) == 10 * frames * 6
    assert len({job.rng().integers(2 ** 62) for job in jobs}) == len(jobs)


def test_jobs_write_what_the_whole_set_holds(nuscenes_root: Path, tmp_path: Path) -> None:
    nuscenes.prepare(tmp_path)
    jobs = [job for job in nuscenes.plan(0, 0.5) if job.split == 'val']
    for number in (6, 10):  # second frame, first and fifth camera
        record = nuscenes.draw(tmp_path, jobs[number])
        written = tmp_path / record['file']
        assert written.read_bytes() == (nuscenes_root / record['file']).read_bytes()
        assert record['provenance'] == {'scene': 'scene-0103', 'frame': 1,
                                        'camera': CAMERAS[number - 6]}
        assert ('inside' in record) == (number == 6)
    scans = list((tmp_path / 'samples' / LIDAR).iterdir())
    assert len(scans) == 1
    assert scans[0].read_bytes() == (
        nuscenes_root / 'samples' / LIDAR / scans[0].name).read_bytes()


def test_counts(nuscenes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nuscenes, 'write_info_files', lambda folder: None)
    nuscenes.prepare(tmp_path)
    records = [{'split': split, 'scene': scene, 'seed': 0, 'inside': [1] * 19}
               for split, scene in (('train', 0), ('train', 1), ('val', 1)) for _ in range(2)]
    assert nuscenes.complete(tmp_path, records + [{'split': 'val'}]) == {
        'train': {'scenes': 2, 'key_frames': 4, 'pictures': 24, 'boxes': 76},
        'val': {'scenes': 1, 'key_frames': 2, 'pictures': 12, 'boxes': 38}}
    scenes = json.loads((tmp_path / 'v1.0-mini' / 'scene.json').read_text())
    assert [scene['name'] for scene in scenes] == ['scene-0061', 'scene-0553', 'scene-0916']


def test_the_tool_writes_it_when_it_is_named(nuscenes_root: Path, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    from tools import make_mini_data
    assert 'nuscenes' not in make_mini_data.build_parser().parse_args(['--root', 'x']).sets
    monkeypatch.setattr(nuscenes, 'render', _grey)
    arguments = ['--root', str(tmp_path), '--sets', 'nuscenes', '--scale', '0.1', '--workers', '1']
    assert make_mini_data.main(arguments) == 0
    folder = tmp_path / 'nuscenes'
    manifest = json.loads((folder / 'mini_data.json').read_text())
    assert manifest['counts']['val'] == {'scenes': 2, 'key_frames': 4, 'pictures': 24, 'boxes': 76}
    assert 'photographs' not in manifest and len(manifest['classes']) == 10
    assert manifest['counts']['train']['scenes'] == 8
    assert len(json.loads((folder / 'provenance.json').read_text())) == 120
    with Image.open(folder / 'overview.png') as sheet:
        assert sheet.size == (6 * 406, 4 * 245)
    assert {path.name for path in folder.glob('*.pkl')} == {
        f'nuscenes_infos_{name}.pkl' for name in ('train', 'val', 'temporal_train',
                                                  'temporal_val')}
    assert make_mini_data.main(arguments) == 0
    assert 'is already complete' in capsys.readouterr().out


def _grey(*_: object) -> np.ndarray:
    return np.full((900, 1600, 3), 128, np.uint8)


def test_overview_draws_boxes_where_they_are(nuscenes_root: Path) -> None:
    """Each edge of a drawn box lies on the border of the box in the picture."""
    import mmengine

    from tools.mini_data import overview
    content = mmengine.load(nuscenes_root / 'nuscenes_infos_temporal_train.pkl')
    compared = 0
    for info in content['data_list']:
        for view in info['images'].values():
            for box in view['mono_instances']:
                if box['visibility'] == 1:
                    edges = np.array(overview._edges_of(box, view['cam2img'])).reshape(-1, 2)
                    assert len(edges) == 24
                    assert np.allclose([*edges.min(0), *edges.max(0)], box['bbox'])
                    compared += 1
    assert compared > 30


def test_importing_the_formats_is_light() -> None:
    import subprocess
    code = ('import sys; import tools.make_mini_data; '
            'print([name for name in ("mmdet3d", "nuscenes") if name in sys.modules])')
    got = subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).parents[3],
                         capture_output=True, text=True, check=True)
    assert got.stdout.strip() == '[]'
