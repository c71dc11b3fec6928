"""nuScenes: synthetic scenes in the real tables, with six cameras, LiDAR and info files.

What a model reaches here says that the pipeline works, not how good the model is.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tools.mini_data.classes import NUSCENES_CLASSES, SPLITS
from tools.mini_data.nuscenes_render import render, scan
from tools.mini_data.nuscenes_world import (
    CAMERAS,
    FRAMES,
    HEIGHT,
    KINDS,
    LIDAR,
    SCENES,
    WIDTH,
    World,
    intrinsics,
    make_world,
    quaternion,
    token,
)
from tools.mini_data.store import Job, scaled, write_json

VERSION_FOLDER = 'v1.0-mini'
_ATTRIBUTES = ('vehicle.moving', 'vehicle.stopped', 'vehicle.parked', 'cycle.with_rider',
               'cycle.without_rider', 'pedestrian.sitting_lying_down', 'pedestrian.standing',
               'pedestrian.moving')
_VISIBILITIES = ('v0-40', 'v40-60', 'v60-80', 'v80-100')
_MAP = 'maps/mini.png'


def plan(seed: int, scale: float) -> list[Job]:
    """One job per picture; ``scale`` below 1 shortens the scenes, to no less than two frames."""
    frames = min(FRAMES, max(2, scaled(FRAMES, scale)))
    return [Job('nuscenes', seed, split, (scene * FRAMES + frame) * len(CAMERAS) + camera)
            for split in SPLITS for scene in range(len(SCENES[split]))
            for frame in range(frames) for camera in range(len(CAMERAS))]


def draw(folder: Path, job: Job) -> dict:
    """Draw and write one picture; the first camera of a key frame brings its LiDAR points."""
    moment, camera = divmod(job.index, len(CAMERAS))
    scene, frame = divmod(moment, FRAMES)
    world = make_world(job.seed, job.split, scene)
    record = draw_view(folder, world, frame, CAMERAS[camera])
    return record | {'split': job.split, 'seed': job.seed, 'scene': scene}


def draw_view(folder: Path, world: World, frame: int, camera: str, picture: bool = True) -> dict:
    """Write what one camera sees of a key frame and, with the first camera, LiDAR points.

    Args:
        folder: Of the set.
        world: The scene.
        frame: Key frame, from 0.
        camera: Its channel.
        picture: Write the picture, not only the record of it.

    Returns:
        Its file, origin, frame and, with the first camera, the LiDAR points within each box.
    """
    name = _file_name(world, frame, camera)
    record: dict[str, Any] = {'file': name, 'frame': frame, 'provenance': {
        'scene': world.name, 'frame': frame, 'camera': camera}}
    if picture:
        Image.fromarray(render(world, frame, camera)).save(folder / name, quality=85)
    if camera == CAMERAS[0]:
        points, record['inside'] = scan(world, frame)
        (folder / _file_name(world, frame, LIDAR)).write_bytes(points.tobytes())
    return record


def _file_name(world: World, frame: int, channel: str) -> str:
    suffix = 'pcd.bin' if channel == LIDAR else 'jpg'
    return (f'samples/{channel}/n000-{world.name}__{channel}__'
            f'{world.timestamp(frame, channel)}.{suffix}')


def prepare(folder: Path) -> None:
    """Make the folders that jobs write to."""
    for name in (VERSION_FOLDER, 'maps', *(f'samples/{channel}' for channel in (*CAMERAS, LIDAR))):
        (folder / name).mkdir(parents=True)


def complete(folder: Path, records: list[dict]) -> dict[str, dict[str, int]]:
    """Write tables and info files; returns counts per split."""
    worlds: dict[tuple[str, int], tuple[World, list[list[int]]]] = {}
    for record in records:
        if 'inside' in record:
            key = record['split'], record['scene']
            world = make_world(record['seed'], *key)
            worlds.setdefault(key, (world, []))[1].append(record['inside'])
    write_tables(folder, list(worlds.values()))
    write_info_files(folder)
    counts = {}
    for split in SPLITS:
        own = [value for (name, _), value in worlds.items() if name == split]
        frames = sum(len(inside) for _, inside in own)
        counts[split] = {'scenes': len(own), 'key_frames': frames,
                         'pictures': frames * len(CAMERAS),
                         'boxes': sum(len(world.things) * len(inside) for world, inside in own)}
    return counts


def write_info_files(folder: Path) -> None:
    """Write the info files as ``tools/data/create_nuscenes_infos.py`` does."""
    # Here, as mmdet3d takes seconds to import and no other set needs it.
    from mmdet3d_custom.datasets.info_file import create_info_files
    create_info_files(folder, VERSION_FOLDER, quiet=True)


def write_tables(folder: Path, worlds: list[tuple[World, list[list[int]]]]) -> None:
    """Write the thirteen tables and the map.

    Args:
        folder: Of the set, with the folders of :func:`prepare`.
        worlds: Scenes, each with the LiDAR points within each box for each key frame.
    """
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(folder / _MAP)
    tables = _fixed_tables() | {name: [] for name in (
        'calibrated_sensor', 'ego_pose', 'log', 'scene', 'sample', 'sample_data', 'instance',
        'sample_annotation')}
    for world, inside in worlds:
        _add_scene(tables, world, inside)
        _add_sensor_data(tables, world, len(inside))
        _add_annotations(tables, world, inside)
    tables['map'] = [{'token': token('map'), 'category': 'semantic_prior', 'filename': _MAP,
                      'log_tokens': [log['token'] for log in tables['log']]}]
    for name, content in tables.items():
        write_json(folder / VERSION_FOLDER / f'{name}.json', content)


def _fixed_tables() -> dict[str, list[dict]]:
    """Tables that are the same for all scenes."""
    categories = [KINDS[name].category for name in NUSCENES_CLASSES]
    return {
        'category': [{'token': token('category', name), 'name': name, 'description': ''}
                     for name in categories],
        'attribute': [{'token': token('attribute', name), 'name': name, 'description': ''}
                      for name in _ATTRIBUTES],
        'visibility': [{'token': str(number), 'level': level, 'description': ''}
                       for number, level in enumerate(_VISIBILITIES, 1)],
        'sensor': [{'token': token('sensor', channel), 'channel': channel,
                    'modality': 'lidar' if channel == LIDAR else 'camera'}
                   for channel in (*CAMERAS, LIDAR)]}


def _sample(world: World, frame: int, frames: int) -> str:
    """Token of a key frame; empty where the scene has no such frame."""
    return token(world.seed, world.name, 'sample', frame) if 0 <= frame < frames else ''


def _add_scene(tables: dict[str, list[dict]], world: World, inside: list[list[int]]) -> None:
    frames, scene = len(inside), token(world.seed, world.name)
    log = token(world.seed, world.name, 'log')
    tables['log'].append({'token': log, 'logfile': f'n000-{world.name}', 'vehicle': 'n000',
                          'date_captured': '2018-07-25', 'location': 'synthetic'})
    tables['scene'].append({
        'token': scene, 'log_token': log, 'nbr_samples': frames, 'name': world.name,
        'description': 'Synthetic', 'first_sample_token': _sample(world, 0, frames),
        'last_sample_token': _sample(world, frames - 1, frames)})
    tables['sample'] += [{
        'token': _sample(world, frame, frames), 'timestamp': world.timestamp(frame),
        'prev': _sample(world, frame - 1, frames), 'next': _sample(world, frame + 1, frames),
        'scene_token': scene} for frame in range(frames)]


def _add_sensor_data(tables: dict[str, list[dict]], world: World, frames: int) -> None:
    for channel in (*CAMERAS, LIDAR):
        lidar, placed = channel == LIDAR, world.sensor(channel)
        calibration = token(world.seed, world.name, 'calibration', channel)
        tables['calibrated_sensor'].append({
            'token': calibration, 'sensor_token': token('sensor', channel),
            'translation': placed[:3, 3].tolist(), 'rotation': quaternion(placed[:3, :3]),
            'camera_intrinsic': [] if lidar else intrinsics(channel).tolist()})
        names = [token(world.seed, world.name, 'data', channel, frame) for frame in range(frames)]
        for frame, name in enumerate(names):
            timestamp = world.timestamp(frame, channel)
            ego = world.ego(world.seconds(timestamp))
            tables['ego_pose'].append({
                'token': name, 'timestamp': timestamp, 'translation': ego[:3, 3].tolist(),
                'rotation': quaternion(ego[:3, :3])})
            tables['sample_data'].append({
                'token': name, 'sample_token': _sample(world, frame, frames),
                'ego_pose_token': name, 'calibrated_sensor_token': calibration,
                'timestamp': timestamp, 'fileformat': 'pcd' if lidar else 'jpg',
                'is_key_frame': True, 'height': 0 if lidar else HEIGHT,
                'width': 0 if lidar else WIDTH, 'filename': _file_name(world, frame, channel),
                'prev': names[frame - 1] if frame else '',
                'next': names[frame + 1] if frame + 1 < frames else ''})


def _add_annotations(tables: dict[str, list[dict]], world: World,
                     inside: list[list[int]]) -> None:
    frames = len(inside)
    for number, thing in enumerate(world.things):
        instance = token(world.seed, world.name, 'instance', number)
        names = [token(world.seed, world.name, 'annotation', number, frame)
                 for frame in range(frames)]
        tables['instance'].append({
            'token': instance, 'nbr_annotations': frames, 'first_annotation_token': names[0],
            'category_token': token('category', KINDS[thing.name].category),
            'last_annotation_token': names[-1]})
        attributes = [token('attribute', thing.attribute)] if thing.attribute else []
        for frame, name in enumerate(names):
            placed = thing.pose(world.seconds(world.timestamp(frame)))
            tables['sample_annotation'].append({
                'token': name, 'sample_token': _sample(world, frame, frames),
                'instance_token': instance, 'visibility_token': '4',
                'attribute_tokens': attributes, 'translation': placed[:3, 3].tolist(),
                'size': list(thing.size), 'rotation': quaternion(placed[:3, :3]),
                'prev': names[frame - 1] if frame else '',
                'next': names[frame + 1] if frame + 1 < frames else '',
                'num_lidar_pts': inside[frame][number], 'num_radar_pts': 0})


def write_set(folder: Path, seed: int = 0, frames: int = FRAMES, tilted: bool = False,
              pictures: bool = True, scenes: int = 2) -> list[World]:
    """Write a set without other processes, for tests; returns its worlds.

    Args:
        folder: Empty or absent.
        seed: Of the worlds.
        frames: Key frames of a scene, 1 to 6.
        tilted: Tilt the LiDAR and the ego vehicle, see :class:`World`.
        pictures: Write pictures; without them all but the loading of pictures works.
        scenes: Of each split, 1 or 2.
    """
    prepare(folder)
    worlds = []
    for split in SPLITS:
        for scene in range(scenes):
            world = make_world(seed, split, scene, tilted)
            records = [draw_view(folder, world, frame, camera, pictures)
                       for frame in range(frames) for camera in CAMERAS]
            worlds.append((world, [record['inside'] for record in records if 'inside' in record]))
    write_tables(folder, worlds)
    write_info_files(folder)
    return [world for world, _ in worlds]
