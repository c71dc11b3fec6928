"""The embedded mini data: formats, determinism, nothing shared between train and val."""
from __future__ import annotations

import filecmp
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'make_mini_data.py'

from tools.mini_data.classes import (  # noqa: E402
    ADE_CLASSES,
    CLASSES,
    COCO_CATEGORY_IDS,
    COCO_CLASSES,
    DEFAULT_SETS,
    IMAGENET_CLASSES,
    PALETTE,
)
from tools.mini_data.polygons import polygon_area, to_polygons  # noqa: E402
from tools.mini_data.silhouettes import SUPERSAMPLING, draw  # noqa: E402
from tools.mini_data.sources import PHOTOS, digit_indices  # noqa: E402

SCALE = '0.1'


def _call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), *map(str, arguments)],
                          capture_output=True, text=True, check=False)


def _make(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    done = _call('--root', root, '--scale', SCALE, *more)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope='module')
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('mini')
    done = _make(root)
    for name in DEFAULT_SETS:
        assert f'look at {root / name / "overview.png"}' in done.stdout
    assert 'mini data: ready' in done.stdout
    return root


def _tree(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob('*') if path.is_file())


def _manifest(mini: Path, name: str) -> dict:
    return json.loads((mini / name / 'mini_data.json').read_text('utf-8'))


def _coco(mini: Path, split: str) -> dict:
    path = mini / f'coco/annotations/instances_{split}2017.json'
    return json.loads(path.read_text('utf-8'))


def test_bytes_depend_on_the_seed_alone(mini: Path, tmp_path: Path) -> None:
    trees = []
    for workers in ('1', '3'):
        root = tmp_path / workers
        assert _call('--root', root, '--scale', '0.02', '--workers', workers).returncode == 0
        trees.append(_tree(root))
    assert trees[0] == trees[1]
    _, differing, errors = filecmp.cmpfiles(tmp_path / '1', tmp_path / '3', trees[0], False)
    assert differing == [] and errors == []
    # A picture does not depend on how many others are drawn either.
    pictures = [name for name in trees[0] if name.lower().endswith(('jpg', 'jpeg'))]
    _, differing, errors = filecmp.cmpfiles(mini, tmp_path / '1', pictures, shallow=False)
    assert len(pictures) > 60 and differing == [] and errors == []
    done = _call('--root', tmp_path / 'other', '--scale', '0.02', '--seed', '1')
    assert done.returncode == 0
    _, differing, _ = filecmp.cmpfiles(tmp_path / '1', tmp_path / 'other', pictures, False)
    assert differing == pictures


def test_second_call_is_quick_and_touches_nothing(mini: Path) -> None:
    before = {name: (mini / name).stat().st_mtime_ns for name in _tree(mini)}
    started = time.monotonic()
    done = _make(mini)
    assert time.monotonic() - started < 10
    assert done.stdout.count('already complete') == 3
    assert before == {name: (mini / name).stat().st_mtime_ns for name in _tree(mini)}


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    arguments = ['--root', str(tmp_path), '--sets', 'ade', '--scale', '0.01']
    assert _call(*arguments).returncode == 0
    return arguments


def test_other_content_is_refused_until_overwrite(small: list[str], tmp_path: Path) -> None:
    picture = tmp_path / 'ade/images/training/ADE_train_00000001.jpg'
    whole = picture.read_bytes()
    picture.write_bytes(whole[:100])
    done = _call(*small)
    assert done.returncode == 2
    assert 'changed, added or lost' in done.stderr and '--overwrite' in done.stderr
    assert picture.read_bytes() == whole[:100]
    assert _call(*small, '--overwrite').returncode == 0
    assert picture.read_bytes() == whole
    done = _call(*small, '--seed', '3')
    assert done.returncode == 2 and 'seed 0 instead of 3' in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['ade']


def test_foreign_files_are_never_replaced(tmp_path: Path) -> None:
    mine = tmp_path / 'coco' / 'train2017' / 'mine.jpg'
    mine.parent.mkdir(parents=True)
    mine.write_text('mine')
    done = _call('--root', tmp_path, '--scale', '0.01', '--overwrite')
    assert done.returncode == 2 and 'did not write' in done.stderr
    assert _tree(tmp_path) == ['coco/train2017/mine.jpg']


def test_nothing_half_written_where_root_is_a_file(tmp_path: Path) -> None:
    (tmp_path / 'root').write_text('')
    done = _call('--root', tmp_path / 'root', '--scale', '0.01', '--sets', 'ade')
    assert done.returncode == 2 and 'choose another --root' in done.stderr
    assert 'Traceback' not in done.stderr


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    from tools.mini_data.store import written_aside
    (tmp_path / 'ade').mkdir()
    (tmp_path / 'ade' / 'old').write_text('old')
    with pytest.raises(KeyboardInterrupt), written_aside(tmp_path / 'ade') as aside:
        (aside / 'new').write_text('new')
        raise KeyboardInterrupt
    assert _tree(tmp_path) == ['ade/old']


@pytest.mark.parametrize(('option', 'value'), [
    ('--seed', '-1'), ('--seed', 'x'), ('--scale', '0'), ('--scale', 'nan'),
    ('--workers', '0'), ('--sets', 'voc')])
def test_bad_arguments(tmp_path: Path, option: str, value: str) -> None:
    done = _call('--root', tmp_path / 'mini', f'{option}={value}')
    assert done.returncode == 2
    assert option in done.stderr and value in done.stderr
    assert not (tmp_path / 'mini').exists()


@pytest.mark.parametrize('name', DEFAULT_SETS)
def test_train_and_val_share_nothing(mini: Path, name: str) -> None:
    provenance = json.loads((mini / name / 'provenance.json').read_text('utf-8'))
    photos: dict[str, set] = {'train': set(), 'val': set()}
    digits: dict[str, set] = {'train': set(), 'val': set()}
    for file, origin in provenance.items():
        assert (mini / name / file).is_file()
        split = 'train' if 'train' in file.split('/', 2)[name == 'ade'] else 'val'
        photos[split].add(origin['photo'])
        digits[split].update(origin['digits'])
        assert PHOTOS[origin['photo']].split == split
    assert len(provenance) == len([file for file in _tree(mini / name)
                                   if file.lower().endswith(('jpg', 'jpeg'))])
    for seen in (photos, digits):
        assert seen['train'] and seen['val'] and not seen['train'] & seen['val']
    assert digits == {split: set(own) for split, own in _manifest(mini, name)['digits'].items()}


def test_digits_of_the_splits_are_disjoint_and_complete() -> None:
    from sklearn.datasets import load_digits
    labels = load_digits().target
    for digit in range(10):
        train, val = set(digit_indices(digit, 'train')), set(digit_indices(digit, 'val'))
        assert not train & val
        assert train | val == set(np.flatnonzero(labels == digit).tolist())


def test_manifest_names_the_classes(mini: Path) -> None:
    for name in DEFAULT_SETS:
        classes = CLASSES[name]
        assert tuple(_manifest(mini, name)['classes']) == classes
        assert list(classes)[name == 'ade':] == sorted(classes[name == 'ade':])
        assert len(classes) <= len(set(PALETTE))


def test_coco_annotations(mini: Path) -> None:
    from pycocotools import mask as masks
    from pycocotools.coco import COCO
    ids, crowds, several, empty = set(), 0, 0, 0
    for split in ('train', 'val'):
        coco = COCO(str(mini / f'coco/annotations/instances_{split}2017.json'))
        assert not ids & set(coco.imgs) and not ids & set(coco.anns)
        ids |= set(coco.imgs) | set(coco.anns)
        assert {entry['name']: entry['id'] for entry in coco.cats.values()} == COCO_CATEGORY_IDS
        for number, image in coco.imgs.items():
            with Image.open(mini / f'coco/{split}2017' / image['file_name']) as picture:
                assert picture.size == (image['width'], image['height'])
            empty += not coco.getAnnIds(number)
        for entry in coco.anns.values():
            area = int(coco.annToMask(entry).sum())
            assert entry['area'] == pytest.approx(area, rel=0.05, abs=20)
            box = masks.toBbox(coco.annToRLE(entry))
            assert np.allclose(box, entry['bbox'], atol=3)
            crowds += entry['iscrowd']
            assert isinstance(entry['segmentation'], dict) == bool(entry['iscrowd'])
            several += len(entry['segmentation']) > 1 and not entry['iscrowd']
    assert crowds >= 3 and several >= 10 and empty >= 3


def test_objects_do_not_overlap_in_coco(mini: Path) -> None:
    from pycocotools.coco import COCO
    coco = COCO(str(mini / 'coco/annotations/instances_val2017.json'))
    for number in coco.imgs:
        entries = coco.loadAnns(coco.getAnnIds(number))
        if len(entries) > 1:
            total = sum(coco.annToMask(entry).astype(int) for entry in entries)
            assert (total > 1).mean() < 0.01


def test_formats_load_in_mmdetection(mini: Path) -> None:
    from mmdet.datasets import CocoDataset
    from mmdet.utils import register_all_modules
    register_all_modules(init_default_scope=True)
    data = CocoDataset(
        data_root=str(mini / 'coco'), ann_file='annotations/instances_train2017.json',
        data_prefix={'img': 'train2017/'}, metainfo={'classes': COCO_CLASSES},
        filter_cfg={'filter_empty_gt': True, 'min_size': 32},
        pipeline=[{'type': 'LoadImageFromFile'},
                  {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
                  {'type': 'PackDetInputs'}])
    assert 0 < len(data) < _manifest(mini, 'coco')['counts']['train']['images']
    labels = set()
    for index in range(len(data)):
        labels |= set(data.get_cat_ids(index))
    assert labels == set(range(len(COCO_CLASSES)))
    sample = data[0]['data_samples']
    assert len(sample.gt_instances.masks) == len(sample.gt_instances.bboxes) > 0


def test_formats_load_in_mmsegmentation(mini: Path) -> None:
    from mmseg.datasets import BaseSegDataset
    from mmseg.utils import register_all_modules
    register_all_modules(init_default_scope=True)
    data = BaseSegDataset(
        data_root=str(mini / 'ade'), reduce_zero_label=True,
        data_prefix={'img_path': 'images/training', 'seg_map_path': 'annotations/training'},
        metainfo={'classes': ADE_CLASSES, 'palette': PALETTE[:len(ADE_CLASSES)]},
        pipeline=[{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'},
                  {'type': 'PackSegInputs'}])
    assert len(data) == _manifest(mini, 'ade')['counts']['train']['images']
    seen: set[int] = set()
    for index in range(len(data)):
        sample = data[index]
        labels = sample['data_samples'].gt_sem_seg.data
        assert labels.shape[1:] == sample['inputs'].shape[1:]
        seen |= set(labels.unique().tolist())
    assert seen == {*range(len(ADE_CLASSES)), 255}


def test_formats_load_in_mmpretrain(mini: Path) -> None:
    from mmpretrain.datasets import CustomDataset, ImageNet
    from mmpretrain.utils import register_all_modules
    register_all_modules(init_default_scope=True)
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'PackInputs'}]
    data = CustomDataset(data_root=str(mini / 'imagenet'), data_prefix='train', pipeline=pipeline)
    assert tuple(data.CLASSES) == IMAGENET_CLASSES
    assert len(data) == _manifest(mini, 'imagenet')['counts']['train']['images']
    val = ImageNet(data_root=str(mini / 'imagenet'), split='val', pipeline=pipeline,
                   metainfo={'classes': IMAGENET_CLASSES})
    for index in range(len(val)):
        folder = Path(val.get_data_info(index)['img_path']).parent.name
        assert IMAGENET_CLASSES[int(val[index]['data_samples'].gt_label)] == folder


def _object_colours(mini: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of red, green and blue of each object, and its category."""
    from pycocotools.coco import COCO
    coco = COCO(str(mini / f'coco/annotations/instances_{split}2017.json'))
    features, labels = [], []
    for entry in coco.anns.values():
        if entry['iscrowd']:
            continue
        path = mini / f'coco/{split}2017' / coco.imgs[entry['image_id']]['file_name']
        with Image.open(path) as picture:
            pixels = np.asarray(picture)[coco.annToMask(entry) > 0]
        features.append(np.concatenate([pixels.mean(0), pixels.std(0)]))
        labels.append(entry['category_id'])
    return np.array(features), np.array(labels)


def test_colour_does_not_tell_the_class(mini: Path) -> None:
    train, labels = _object_colours(mini, 'train')
    categories = np.unique(labels)
    centres = np.array([train[labels == number].mean(0) for number in categories])
    scale = train.std(0)
    right = []
    for split in ('train', 'val'):
        features, wanted = _object_colours(mini, split)
        gaps = (((features[:, None] - centres) / scale) ** 2).sum(-1)
        right.extend(categories[gaps.argmin(1)] == wanted)
    assert len(right) > 200
    assert np.mean(right) < 0.27, 'chance is 0.125'


def test_an_island_in_a_hole_is_counted_once() -> None:
    y, x = np.mgrid[:160, :160] - 80
    away = np.hypot(x, y)
    mask = ((away < 70) & (away > 45)) | (away < 30)
    polygons = to_polygons(mask)
    assert len(polygons) == 3
    assert polygon_area(polygons) == pytest.approx(mask.sum() / SUPERSAMPLING ** 2, rel=0.05)


def test_masks_become_polygons_without_holes() -> None:
    rng = np.random.default_rng(0)
    mask, digit = draw(rng, 'ring', 40, 'train')
    polygons = to_polygons(mask)
    assert digit is None and len(polygons) == 2
    assert polygon_area(polygons) == pytest.approx(mask.sum() / SUPERSAMPLING ** 2, rel=0.05)
    assert to_polygons(np.zeros((8, 8), bool)) == []


@pytest.mark.parametrize('name', sorted({*COCO_CLASSES, *IMAGENET_CLASSES}))
def test_objects_have_their_size_and_are_whole(name: str) -> None:
    rng = np.random.default_rng(1)
    for size in (18, 30, 90):
        for _ in range(10):
            mask, digit = draw(rng, name, size, 'val')
            assert (digit is not None) == name.startswith('digit_')
            rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            height = (rows[-1] - rows[0] + 1) / SUPERSAMPLING
            assert 0.55 * size < height < 1.35 * size
            assert rows[0] > 0 and cols[0] > 0
            assert rows[-1] < mask.shape[0] - 1 and cols[-1] < mask.shape[1] - 1
