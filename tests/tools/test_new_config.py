"""One's own data, from a folder to a trained model, and what is refused on the way."""
from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmdcn.analysis.complexity import build_on_meta
from mmdcn.apis.config import load_config
from mmdcn.engine.build_errors import walk
from tests.helpers import ROOT
from tests.tools.own_data import sets
from tools import new_config
from tools import test as test_tool
from tools import train as train_tool

MINI = ROOT / 'configs/mini'
BASES = {
    'detector': MINI / 'mask-rcnn_flash-internimage-pico_fpn_1xb4-2k_mini-coco-160x128.py',
    'cascade': MINI / 'cascade-mask-rcnn_flash-internimage-pico_fpn_1xb4-2k_mini-coco-160x128.py',
    'dino': MINI / 'dino-4scale_flash-internimage-pico_1xb4-3k_mini-coco-160x128.py',
    'segmentor': MINI / 'upernet_flash-internimage-pico_1xb16-2k_mini-ade-128x128.py',
    'classifier': MINI / 'flash-internimage-pico_1xb48-2k_mini-imagenet-64x64.py',
}
LOADERS = [f'{part}_dataloader.{key}' for part in ('train', 'val', 'test')
           for key in ('num_workers=0', 'persistent_workers=False')]


def write(kind: str, root: Path, out: Path, *options: str) -> int:
    """Run the tool on a data set."""
    return new_config.main(['--base', str(BASES[kind]), '--data', str(root), '--out', str(out),
                            *options])


def shrink(path: Path) -> None:
    """Small pictures as they are: no scaling, so that a minute is enough."""
    cfg = load_config(str(path))
    for part in ('train', 'val'):
        for step in cfg[f'{part}_dataloader'].dataset.pipeline:
            if step.type == 'Resize' or step.type == 'RandomResize':
                step.scale = (sets.SIZE, sets.SIZE)
            elif step.type == 'RandomCrop':
                step.crop_size = (sets.SIZE, sets.SIZE)
    cfg.test_dataloader = cfg.val_dataloader
    if 'size' in cfg.model.get('data_preprocessor', {}):
        cfg.model.data_preprocessor.size = (sets.SIZE, sets.SIZE)
    Config(cfg.to_dict()).dump(str(path))


def measured(config: Path, checkpoint: Path, work_dir: Path) -> dict[str, float]:
    out = work_dir / 'metrics.json'
    assert test_tool.main([str(config), str(checkpoint), '--work-dir', str(work_dir),
                           '--metrics', str(out), '--cfg-options', *LOADERS[4:]]) == 0
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'make', 'length', 'metric'), [
    ('detector', sets.write_coco, 120, 'coco/bbox_mAP_50'),
    ('segmentor', sets.write_label_maps, 30, 'mIoU'),
    ('classifier', sets.write_class_folders, 30, 'accuracy/top1')])
def test_two_commands_train_a_model(kind: str, make: Callable[[Path], Path], length: int,
                                    metric: str, tmp_path: Path) -> None:
    root, config = make(tmp_path / 'my data'), tmp_path / 'my.py'
    assert write(kind, root, config, '--iters', str(length), '--batch', '4') == 0
    shrink(config)
    results = {}
    for name, options in {'untrained': ['train_cfg.max_iters=1', 'optim_wrapper.optimizer.lr=0.0'],
                          'trained': []}.items():
        work_dir = tmp_path / name
        assert train_tool.main([str(config), '--work-dir', str(work_dir), '--seed', '0',
                                '--cfg-options', 'train_cfg.val_interval=1000', *LOADERS[:4],
                                *options]) == 0
        checkpoint = Path((work_dir / 'last_checkpoint').read_text().strip())
        results[name] = measured(config, checkpoint, work_dir / 'test')[metric]
    assert results['trained'] > results['untrained'] + (0.05 if 'coco' in metric else 5.0), results


@pytest.mark.parametrize('kind', ['detector', 'cascade', 'dino', 'segmentor', 'classifier'])
def test_every_head_knows_the_classes(kind: str, tmp_path: Path) -> None:
    make = {'segmentor': sets.write_label_maps, 'classifier': sets.write_class_folders}
    root, out = make.get(kind, sets.write_coco)(tmp_path / 'data'), tmp_path / 'new' / 'my.py'
    assert write(kind, root, out) == 0
    cfg = load_config(str(out))
    numbers = [value for path, value in walk(cfg.model.to_dict()) if path.endswith('num_classes')]
    classes = list(cfg.train_dataloader.dataset.metainfo['classes'])
    assert classes == list(cfg.test_dataloader.dataset.metainfo['classes'])
    assert classes == {
        'segmentor': ['ground', *sets.COLOURS], 'classifier': sorted(sets.COLOURS)}.get(
            kind, list(sets.CATEGORY_IDS))
    assert numbers and set(numbers) == {len(classes)}
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        build_on_meta(lambda: MODELS.build(cfg.model))
    assert (out.parent / 'my_overview.png').is_file()


def test_the_config_is_short_and_says_what_it_does(tmp_path: Path) -> None:
    root, out = sets.write_coco(tmp_path / 'data'), tmp_path / 'my.py'
    assert write('detector', root, out, '--batch', '8', '--gpus', '2') == 0
    text = out.read_text()
    assert len(text.splitlines()) <= 40 and max(map(len, text.splitlines()[5:])) <= 100
    assert text.startswith('"""3 classes of data: 24 pictures to train, 9 to validate.')
    cfg = load_config(str(out))
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(4e-3)  # four times the batch of 4
    assert cfg.auto_scale_lr.base_batch_size == 16 and cfg.train_dataloader.batch_size == 8
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == 1000
    assert cfg.test_evaluator.ann_file.endswith('_annotations.valid.json')


def test_what_was_found_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = sets.write_coco(tmp_path / 'data')
    assert write('detector', root, tmp_path / 'my.py') == 0
    out = capsys.readouterr().out
    assert 'grün 2' in out and 'train: 24 pictures, 0 of them without objects' in out
    assert '64x64 to 64x64 px' in out and 'without iscrowd or area' in out


def test_a_set_without_split_is_split(tmp_path: Path) -> None:
    content = sets.coco_content(range(20), tmp_path / 'data/images')
    (tmp_path / 'data/all.json').write_text(json.dumps(content))
    out = tmp_path / 'my.py'
    assert write('dino', tmp_path / 'data', out) == 0
    parts = [json.loads((tmp_path / f'my_{part}.json').read_text()) for part in ('train', 'val')]
    assert [len(part['images']) for part in parts] == [18, 2]
    assert sorted(os.listdir(tmp_path / 'data')) == ['all.json', 'images']
    evaluator = load_config(str(out)).val_evaluator
    assert Path(evaluator.ann_file) == tmp_path / 'my_val.json'


def test_weights_replace_those_of_the_base(tmp_path: Path) -> None:
    weights = tmp_path / 'weights.pth'
    weights.write_bytes(b'x')
    out = tmp_path / 'my.py'
    base = ROOT / 'configs/coco/mask-rcnn_internimage-t_fpn_8xb2-1x_coco.py'
    assert new_config.main(['--base', str(base), '--data', str(sets.write_coco(tmp_path / 'data')),
                            '--out', str(out), '--weights', str(weights)]) == 0
    cfg = load_config(str(out))
    assert cfg.load_from == str(weights) and cfg.model.backbone.init_cfg is None
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 * 2 / 16)


def forget_masks(root: Path) -> None:
    for path in root.rglob('*.json'):
        content = json.loads(path.read_text())
        for entry in content['annotations']:
            del entry['segmentation']
        path.write_text(json.dumps(content))


def break_box(root: Path) -> None:
    path = next(root.rglob('*train.json'))
    content = json.loads(path.read_text())
    content['annotations'][3]['bbox'] = [500, 500, 10, 10]
    path.write_text(json.dumps(content))


def lose_picture(root: Path) -> None:
    next(root.rglob('*.png')).unlink()


def add_set(root: Path) -> None:
    path = next(root.rglob('*train.json'))
    path.with_name('more_train.json').write_text(path.read_text())


@pytest.mark.parametrize(('spoil', 'words'), [
    (forget_masks, '--base is not valid: it predicts masks, and .* has boxes only'),
    (break_box, 'annotation'), (lose_picture, 'pictures that .* names are absent'),
    (add_set, 'has several annotations of train')])
def test_what_cannot_be_trained_on_is_refused(
        spoil: Callable[[Path], None], words: str, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    root, out = sets.write_coco(tmp_path / 'data'), tmp_path / 'my.py'
    spoil(root)
    assert write('detector', root, out) == 2
    assert re.search(words, capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ['data']


@pytest.mark.parametrize(('options', 'words'), [
    (['--out', 'my.yaml'], '--out is not valid: got my.yaml'),
    (['--batch', '0'], '--batch is not valid: got 0'),
    (['--data', 'nowhere'], '--data is not valid: nowhere is no folder'),
    (['--weights', 'nothing.pth'], '--weights is not valid')])
def test_arguments_are_checked(options: list[str], words: str, tmp_path: Path,
                               capsys: pytest.CaptureFixture[str]) -> None:
    assert write('classifier', tmp_path, tmp_path / 'my.py', *options) == 2
    assert words in capsys.readouterr().err
