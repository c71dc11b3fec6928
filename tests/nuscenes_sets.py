"""Synthetic nuScenes folders, each written when first asked for, and what is read from them."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

FRAMES = 3
"""Key frames of a scene of the test sets."""

INFOS = 'nuscenes_infos_temporal_{}.pkl'


@pytest.fixture(scope='session')
def nuscenes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with pictures. Tests do not change it."""
    from tools.mini_data import nuscenes
    root = tmp_path_factory.mktemp('nuscenes')
    nuscenes.write_set(root, frames=FRAMES)
    return root


@pytest.fixture(scope='session')
def tilted_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set without pictures, with tilted LiDAR and an ego vehicle that pitches and rolls."""
    from tools.mini_data import nuscenes
    root = tmp_path_factory.mktemp('tilted')
    nuscenes.write_set(root, seed=1, frames=FRAMES, tilted=True, pictures=False)
    return root


def read_set(root: Path, split: str = 'train', **kwargs: Any) -> Any:
    """A TemporalNuScenesDataset."""
    from mmdet3d_custom.datasets import TemporalNuScenesDataset
    # Not serialised, as that collects garbage for most of a second.
    arguments = {'data_root': str(root), 'ann_file': INFOS.format(split),
                 'serialize_data': False} | kwargs
    return TemporalNuScenesDataset(**arguments)
