"""One's own data, from a folder to a trained model, and what is refused on the way."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdcn.apis.config import load_config
from tests.helpers import ROOT
from tests.tools.own_data import sets
from tools import new_config
from tools import test as test_tool
from tools import train as train_tool

MINI = ROOT / 'configs/mini'
BASES = {
    'detector': MINI / 'mask-rcnn_flash-internimage-pico_fpn_1xb4-2k_mini-coco-160x128.py',
    'cascade': MINI / 'cascade-mask-rcnn_flash-internimage-pico_fpn_1xb4-2k_mini-coco-160x128.py',
    'dino': MINI / 'dino-4scale_flash-internimage-pico_1xb4-2k_mini-coco-160x128.py',
    'segmentor': MINI / 'upernet_flash-internimage-pico_1xb16-2k_mini-ade-128x128.py',
    'classifier': MINI / 'flash-internimage-pico_1xb48-2k_mini-imagenet-64x64.py',
}
LOADERS = [f'{part}_dataloader.{key}' for part in ('train', 'val', 'test')
           for key in ('num_workers=0', 'persistent_workers=False')]
SMALL = 'from {}'


def write(kind: str, root: Path, out: Path, *options: str) -> int:
    """Run the tool on a data set."""
    return new_config.main(['--base', str(BASES[kind]), '--data', str(root), '--out', str(out),
                            *options])


def shrink(path: Path) -> None:
    """Small pictures as they are: no scaling, so that a minute is enough."""
    cfg = load_config(str(path))
    for part in ('train', 'val'):
        for step in cfg[f'{part}_dataloader'].dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (sets.SIZE, sets.SIZE)
            elif step.type == 'RandomResize':
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
