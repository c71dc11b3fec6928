"""BEVFormer v2 from the command line: training, testing with pictures, prediction of one sample."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('mmdet3d_custom')

from tests.helpers import ROOT
from tests.nuscenes_sets import FRAMES, INFOS, read_set
from tools import predict, test, train

CONFIG = str(ROOT / 'configs/mini/bevformer-v2-t1_flash-internimage-pico_1xb2-1k_mini-nuscenes.py')
SHORT = ['train_cfg.max_iters=2', 'param_scheduler.0.end=1', 'param_scheduler.1.begin=1',
         'param_scheduler.1.end=2', 'train_dataloader.num_workers=0',
         'train_dataloader.persistent_workers=False', 'test_dataloader.num_workers=0',
         'test_dataloader.persistent_workers=False']


@pytest.fixture(scope='module')
def run(nuscenes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The working folder, with the set where the config looks for it, and a checkpoint."""
    folder = tmp_path_factory.mktemp('bevformer')
    (folder / 'data/mini').mkdir(parents=True)
    (folder / 'data/mini/nuscenes').symlink_to(nuscenes_root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train.main([CONFIG, '--work-dir', 'work', '--seed', '0', '--cfg-options',
                           *SHORT, 'val_cfg=None', 'val_dataloader=None',
                           'val_evaluator=None']) == 0
    return folder, folder / 'work/iter_2.pth'


def test_testing_writes_metrics_and_a_picture_of_each_sample(
        run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, checkpoint = run
    monkeypatch.chdir(folder)
    assert test.main([CONFIG, str(checkpoint), '--work-dir', 'test', '--metrics', 'metrics.json',
                      '--show-dir', 'pictures', '--cfg-options', *SHORT]) == 0
    metrics = json.loads(Path('metrics.json').read_text())
    assert 0 <= metrics['NuScenes metric/pred_instances_3d_NuScenes/NDS'] < 0.5
    pictures = sorted(path.name for path in Path('pictures').iterdir())
    assert pictures == [f'scene-{scene}_{frame:03d}.jpg' for scene in ('0061', '0553')
                        for frame in range(FRAMES)]
    picture = cv2.imread(f'pictures/{pictures[0]}')
    assert picture.shape == (2 * 160, 3 * 400 + 2 * 160, 3)
    white = (picture > 230).all(-1)
    assert white[:, 1200:].sum() > 100, 'the ground truth in the bird\'s-eye view'


def test_a_sample_is_predicted_by_its_token(run: tuple[Path, Path],
                                            monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture) -> None:
    folder, checkpoint = run
    monkeypatch.chdir(folder)
    token = read_set(Path('data/mini/nuscenes')).get_data_info(1)['token']
    options = ['--out-dir', 'out', '--score-thr', '0', '--cfg-options', *SHORT]
    assert predict.main([CONFIG, str(checkpoint), token, *options]) == 0
    found = json.loads(Path(f'out/{token}.json').read_text())
    assert found['image'] == token and len(found['objects']) > 10
    first = found['objects'][0]
    assert np.shape(first['center']) == np.shape(first['size']) == (3,)
    assert np.shape(first['velocity']) == (2,) and min(first['size']) > 0
    assert first['score'] == max(entry['score'] for entry in found['objects'])
    assert cv2.imread(f'out/{token}.jpg').shape == (320, 1520, 3)

    assert predict.main([CONFIG, str(checkpoint), 'nonsense', *options]) == 2
    error = capsys.readouterr().err
    assert 'got nonsense' in error and INFOS.format('train') in error
