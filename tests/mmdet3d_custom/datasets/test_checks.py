"""The check of nuScenes before a run: pictures, their sizes, and heads against classes."""
from __future__ import annotations

import shutil
from pathlib import Path

import mmengine
import pytest
from PIL import Image
from torch import nn

pytest.importorskip('mmdet3d_custom')

from mmdcn.data.checks import build_dataset, check_dataset, check_model, find_check
from mmdcn.errors import UserError
from mmdet3d_custom.datasets import TemporalNuScenesDataset
from mmdet3d_custom.datasets.checks import NuScenesCheck
from mmdet3d_custom.datasets.info_file import CAMERAS
from tests.nuscenes_sets import INFOS, read_set


@pytest.fixture
def copy(nuscenes_root: Path, tmp_path: Path) -> Path:
    """Two samples with small pictures, which the info file says are small."""
    root = tmp_path / 'set'
    content = mmengine.load(nuscenes_root / INFOS.format('train'))
    content['data_list'] = content['data_list'][:2]
    for info in content['data_list']:
        for camera in CAMERAS:
            image = info['images'][camera]
            path = root / 'samples' / camera / image['img_path']
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (16, 9)).save(path)
            image.update(width=16, height=9)
    mmengine.dump(content, root / INFOS.format('train'))
    return root


def check(root: Path) -> None:
    assert check_dataset(read_set(root, frames=(-1, 0)), 'train_dataloader.dataset', False,
                         print) == [[]]


def pictures(root: Path) -> list[Path]:
    return sorted((root / 'samples').rglob('*.jpg'))


def test_it_is_registered() -> None:
    assert isinstance(find_check(TemporalNuScenesDataset), NuScenesCheck)


def test_whole_sets_pass(copy: Path, nuscenes_root: Path) -> None:
    check(copy)
    check(nuscenes_root)


def test_missing_and_damaged_pictures_are_named(copy: Path) -> None:
    first, second, third = pictures(copy)[:3]
    first.unlink()
    second.unlink()
    third.write_bytes(third.read_bytes()[:200])
    with pytest.raises(UserError) as caught:
        check(copy)
    text = str(caught.value)
    assert '3 of 12 pictures are broken (2 missing, 1 damaged)' in text
    assert f'missing file {first}' in text and f'damaged file {third}' in text
    shutil.rmtree(copy / 'samples')
    with pytest.raises(UserError, match='12 of 12 pictures are broken.*data_root'):
        check(copy)


def test_pictures_of_another_size_are_named(copy: Path) -> None:
    for number, path in enumerate(pictures(copy)[:7]):
        Image.new('RGB', (20 + number, 9)).save(path)
    with pytest.raises(UserError) as caught:
        check(copy)
    text = str(caught.value)
    assert '7 of 12 pictures have another size' in text and 'and 2 more' in text
    assert '20x9 instead of 16x9' in text


@pytest.mark.parametrize(('content', 'words'), [
    ({'infos': [], 'metadata': {}}, 'mmdet3d before 1.0'),
    ({'metainfo': {'version': 'v1.0-mini'}, 'data_list': []}, "mmdet3d's own")])
def test_other_info_files_are_refused_as_they_are_built(copy: Path, content: dict,
                                                        words: str) -> None:
    mmengine.dump(content, copy / 'other.pkl')
    config = {'type': 'mmdet3d.TemporalNuScenesDataset', 'data_root': str(copy),
              'ann_file': 'other.pkl'}
    with pytest.raises(UserError, match=words):
        build_dataset(config, 'train_dataloader.dataset')


class Head(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.num_classes = classes


@pytest.mark.parametrize(('name', 'classes', 'refused'), [
    ('pts_bbox_head', 10, False), ('pts_bbox_head', 9, True), ('fcos3d_bbox_head', 80, True),
    ('img_backbone', 1000, False)])
def test_heads_must_have_the_classes_of_the_set(copy: Path, name: str, classes: int,
                                                refused: bool) -> None:
    model = nn.ModuleDict({name: Head(classes)})
    dataset = read_set(copy)
    if not refused:
        check_model(model, dataset, 'train_dataloader.dataset')
        return
    with pytest.raises(UserError, match=rf'model.{name}.num_classes.*got {classes}, expected 10'):
        check_model(model, dataset, 'train_dataloader.dataset')
