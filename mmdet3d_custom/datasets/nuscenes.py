"""nuScenes with the frames of a sample: its own key frame and those at fixed offsets."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mmdet3d.datasets import NuScenesDataset
from mmdet3d.registry import DATASETS

from mmdcn.errors import UserError, suggest
from mmdet3d_custom.datasets.info_file import CAMERAS, TOOL, check_temporal, read_info

CLASSES = tuple(sorted(NuScenesDataset.METAINFO['classes']))
"""The ten classes in alphabetical order, in which published BEVFormers count them."""

_PREFIX = {camera: f'samples/{camera}' for camera in CAMERAS} | {
    'pts': 'samples/LIDAR_TOP', 'sweeps': 'sweeps/LIDAR_TOP'}


@DATASETS.register_module()
class TemporalNuScenesDataset(NuScenesDataset):
    """mmdet3d's nuScenes whose samples hold the pictures of several key frames.

    Pipelines get, beside what mmdet3d gives (``ann_info``, ``token``, ...): ``frames``,
    ``frame_valid`` (T,) bool, ``frame_tokens``, ``frame_paths`` (T lists of 6 paths, None for a
    frame that the scene does not have), ``frame_cam2img`` (T, 6, 3, 3) and ``frame_lidar2cam``
    (T, 6, 4, 4) float64, the latter from the LiDAR frame of the current sample to the cameras of
    each frame through the world, and ``perspective``, the boxes that the current frame's cameras
    see, as arrays. Matrices of absent frames are those of the current one.

    Args:
        data_root: Folder of the set.
        ann_file: A temporal info file (:mod:`mmdet3d_custom.datasets.info_file`), below
            ``data_root`` or absolute.
        frames: Offsets of the key frames, ascending, 0 among them; -1 is half a second ago.
        pipeline: Transforms, see :mod:`mmdet3d_custom.datasets.transforms`.
        metainfo: ``classes``, by default all in alphabetical order, and ``version``, by default
            that of the info file.
        data_prefix: Folders of the sensors, by default those of nuScenes.
        modality: By default cameras alone.
        kwargs: As mmdet3d's class; published trainings set ``use_valid_flag=True``, which also
            keeps boxes with radar points alone.

    Raises:
        ValueError: ``frames`` is not valid.
        UserError: The info file is missing, damaged or of the old convention, has no temporal
            part or is of another version, or a class is unknown.
    """

    def __init__(self, data_root: str, ann_file: str, frames: Sequence[int] = (0, ),
                 pipeline: Sequence[dict[str, Any] | Callable] = (),
                 metainfo: dict[str, Any] | None = None,
                 data_prefix: dict[str, str] | None = None,
                 modality: dict[str, bool] | None = None, **kwargs: Any) -> None:
        if list(frames) != sorted({int(frame) for frame in frames}) or 0 not in frames:
            raise ValueError(f'frames is not valid: got {tuple(frames)}, expected different whole '
                             'numbers, ascending, 0 among them')
        self.frames = tuple(int(frame) for frame in frames)
        metainfo = {'classes': CLASSES} | dict(metainfo or {})
        known = self.METAINFO['classes']
        for name in metainfo['classes']:
            if name not in known:
                raise UserError('metainfo.classes', f'got {name!r}', f'names of {known}',
                                suggest(name, known))
        metainfo.setdefault('palette', [self.METAINFO['palette'][known.index(name)]
                                        for name in metainfo['classes']])
        self._version = metainfo.get('version')
        self._places: dict[tuple[str, int], int] = {}
        self._tokens: dict[str, int] | None = None  # by token, once it is asked for
        super().__init__(
            data_root=data_root, ann_file=ann_file, pipeline=list(pipeline), metainfo=metainfo,
            data_prefix=dict(_PREFIX if data_prefix is None else data_prefix),
            modality=dict(modality or {'use_camera': True, 'use_lidar': False}), **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """The samples of the info file, in its order.

        Raises:
            UserError: See the class.
        """
        content = read_info(self.ann_file)
        check_temporal(content, self.ann_file)
        version = content['metainfo'].get('version')
        if self._version not in (None, version):
            raise UserError(f'info file {self.ann_file}', f'got one of {version}',
                            f'{self._version}, as metainfo.version says',
                            f'make one of that version with {TOOL}, or correct metainfo.version '
                            'of the data set')
        self._metainfo['version'] = version
        for key, value in content['metainfo'].items():
            self._metainfo.setdefault(key, value)
        self._places = {(info['scene_token'], info['frame_idx']): position
                        for position, info in enumerate(content['data_list'])}
        return [self.parse_data_info(info) | {'file_idx': position}
                for position, info in enumerate(content['data_list'])]

    def parse_data_info(self, info: dict[str, Any]) -> dict[str, Any]:
        """One sample of the file with absolute paths, annotations and perspective boxes."""
        for camera in CAMERAS:
            if camera not in info['images']:
                raise UserError(f'info file {self.ann_file}',
                                f'sample {info["token"]} has no {camera}', 'all six cameras')
        info['perspective'] = self._perspective_boxes(
            [info['images'][camera].pop('mono_instances', []) for camera in CAMERAS])
        if not self.modality['use_lidar']:  # they are most of a sample's memory
            for key in ('lidar_sweeps', 'cam_instances'):
                info.pop(key, None)
        return super().parse_data_info(info)

    def _perspective_boxes(self, cameras: list[list[dict[str, Any]]]) -> dict[str, np.ndarray]:
        """The boxes of all cameras as arrays, without those of classes that are left out."""
        rows = [(camera, self.label_mapping[box['label']], box)
                for camera, boxes in enumerate(cameras) for box in boxes
                if self.label_mapping[box['label']] >= 0]
        boxes = [box for _, _, box in rows]

        def stack(key: str, width: int) -> np.ndarray:
            return np.array([box[key] for box in boxes], np.float64).reshape(-1, width)

        def column(key: str, dtype: type) -> np.ndarray:
            return np.array([box[key] for box in boxes], dtype)

        return {'cameras': np.array([camera for camera, _, _ in rows], np.int64),
                'labels': np.array([label for _, label, _ in rows], np.int64),
                'bboxes': stack('bbox', 4), 'quaternions': stack('quat_wxyz', 4),
                'centers': stack('xyz', 3), 'sizes': stack('wlh', 3),
                'attributes': column('attr_id', np.int64), 'speeds': column('speed', np.float64),
                'num_pts': column('num_pts', np.int64),
                'visibility': column('visibility', np.float64)}

    def full_init(self) -> None:
        """Load the info file and find the neighbours of each sample."""
        if not self._fully_initialized:
            super().full_init()
            if len(self) != len(self._places) or self._indices is not None:
                self._find_places()

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """As mmengine's; what is left out is no history of others either."""
        super().get_subset_(indices)
        self._find_places()

    def get_subset(self, indices: Sequence[int] | int) -> TemporalNuScenesDataset:
        """As mmengine's; what is left out is no history of others either."""
        subset = super().get_subset(indices)
        subset._find_places()
        return subset

    def _find_places(self) -> None:
        self._tokens = None
        infos = map(self.get_data_info, range(len(self)))
        self._places = {(info['scene_token'], info['frame_idx']): index
                        for index, info in enumerate(infos)}

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """A sample; ``sample_idx`` is its position in the file, where the metric looks it up."""
        info = super().get_data_info(idx)
        return info | {'sample_idx': info['file_idx']}

    def neighbour(self, info: dict[str, Any], offset: int) -> dict[str, Any] | None:
        """The sample so many key frames away in the same scene, or None."""
        index = self._places.get((info['scene_token'], info['frame_idx'] + offset))
        return None if index is None else self.get_data_info(index)

    def find_sample(self, token: str) -> int:
        """Index of a sample.

        Raises:
            UserError: There is none of this token; the message names some that there are.
        """
        if self._tokens is None:
            self._tokens = {self.get_data_info(index)['token']: index
                            for index in range(len(self))}
        if token not in self._tokens:
            raise UserError('sample', f'got {token}, which is not in {self.ann_file}',
                            'a sample token of that file',
                            f'its first ones are {", ".join(list(self._tokens)[:3])}')
        return self._tokens[token]

    def collect_frames(self, index: int) -> dict[str, Any]:
        """What a pipeline starts with, see the class."""
        current = self.get_data_info(index)
        from_current = np.array(current['lidar2global'])
        valid, tokens, paths, cam2img, lidar2cam = [], [], [], [], []
        for offset in self.frames:
            found = self.neighbour(current, offset) if offset else current
            info = current if found is None else found
            images = [info['images'][camera] for camera in CAMERAS]
            valid.append(found is not None)
            tokens.append(info['token'] if valid[-1] else '')
            paths.append([image['img_path'] for image in images] if valid[-1] else None)
            cam2img.append([image['cam2img'] for image in images])
            move = np.eye(4) if info is current else np.linalg.solve(
                np.array(info['lidar2global']), from_current)
            lidar2cam.append(np.array([image['lidar2cam'] for image in images]) @ move)
        return current | {
            'frames': self.frames, 'frame_valid': np.array(valid), 'frame_tokens': tokens,
            'frame_paths': paths, 'frame_cam2img': np.array(cam2img, np.float64),
            'frame_lidar2cam': np.array(lidar2cam, np.float64), 'bda': np.eye(3),
            'box_type_3d': self.box_type_3d, 'box_mode_3d': self.box_mode_3d}

    def prepare_data(self, index: int) -> dict[str, Any] | None:
        """The sample as the pipeline packs it.

        None, so that another one is taken, where training filters and no box is left or, as in the
        released code, no camera has a perspective target although the pipeline makes them.
        """
        filtered = not self.test_mode and self.filter_empty_gt
        results = self.collect_frames(index)
        if filtered and not len(results['ann_info']['gt_labels_3d']):
            return None
        example = self.pipeline(results)
        if not filtered or example is None:
            return example
        sample = example['data_samples']
        if not len(sample.gt_instances_3d.labels_3d) or (
                'gt_instances_perspective' in sample
                and not len(sample.gt_instances_perspective.labels)):
            return None
        return example
