"""Label maps as users have them, from the files through training to the metric."""
from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmdcn.checkpoints import read_checkpoint
from tests.helpers import ROOT
from tools import train

pytest.importorskip('mmseg')

MINI = ROOT / 'configs' / 'mini'
SYSTEMS = {'upernet': MINI / 'upernet_flash-internimage-pico_1xb16-2k_mini-ade-128x128.py',
           'mask2former': MINI / 'mask2former_flash-internimage-pico_1xb8-2k_mini-ade-128x128.py'}
SIZES = [(61, 47), (95, 37), (33, 130)]  # widths and heights; none is a multiple of a stride


def _write_label_map(path: Path, labels: np.ndarray, kind: str) -> None:
    """Write class numbers, of shape (H, W) and uint8, in one of the kinds that users bring."""
    if kind == 'palette':
        image = Image.fromarray(labels, 'P')
        image.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    else:
        image = Image.fromarray(labels.astype(np.uint16) if kind == '16 bit' else labels)
    image.save(path)


def _write_set(root: Path, kind: str) -> None:
    """Pictures of odd sizes; label maps of 0 (void), 255 (ignored) and the classes 1 to 8."""
    rng = np.random.default_rng(0)
    for part in ('training', 'validation'):
        for folder in ('images', 'annotations'):
            (root / folder / part).mkdir(parents=True)
        for i, (width, height) in enumerate(SIZES):
            labels = rng.integers(0, 9, (height // 4 + 1, width // 4 + 1)).repeat(4, 0).repeat(4, 1)
            labels = labels[:height, :width].astype(np.uint8)
            labels[:3] = 255
            picture = np.stack([labels * 25, 255 - labels * 25, labels % 3 * 90], -1)
            Image.fromarray(picture.astype(np.uint8)).save(root / 'images' / part / f'{i}.jpg')
            _write_label_map(root / 'annotations' / part / f'{i}.png', labels, kind)


def _options(root: Path) -> list[str]:
    """Few short iterations on the set; pictures are tested in their own size."""
    options = [f'{name}_dataloader.dataset.data_root={root}' for name in ('train', 'val', 'test')]
    options += [f'{name}_dataloader.num_workers=0' for name in ('train', 'val', 'test')]
    options += [f'{name}_dataloader.persistent_workers=False' for name in ('train', 'val', 'test')]
    options += [f'{name}_dataloader.dataset.pipeline.1.{key}' for name in ('val', 'test')
                for key in ('scale=None', 'scale_factor=1.0')]
    return ['--cfg-options', 'train_cfg.max_iters=2', 'train_dataloader.batch_size=2', *options]


@pytest.mark.slow
@pytest.mark.parametrize('system', SYSTEMS)
def test_kinds_of_label_maps_are_one(tmp_path, capsys, system):
    metrics, weights = [], []
    for kind in ('8 bit', 'palette', '16 bit'):
        folder = tmp_path / kind.replace(' ', '_')
        _write_set(folder / 'set', kind)
        assert train.main([str(SYSTEMS[system]), '--work-dir', str(folder / 'work'), '--seed', '0',
                           *_options(folder / 'set')]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        metrics.append(re.search(r'aAcc=(\S+) mIoU=(\S+) mAcc=(\S+);', last).groups())
        weights.append(read_checkpoint(folder / 'work' / 'iter_2.pth')['state_dict'])
    assert 0 < float(metrics[0][0]) < 50 and metrics[1:] == metrics[:1] * 2
    assert all(torch.equal(value, other[key])
               for other in weights[1:] for key, value in weights[0].items())
