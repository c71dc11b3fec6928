"""Single images: the network finds them, sees them, and shows what it sees."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from torch import nn

from mmdcn.apis import cli
from mmdcn.apis.config import load_config
from mmdcn.apis.inference import Predictor, find_backbone, find_images
from mmdcn.errors import UserError
from tests.helpers import ROOT


def test_model_without_backbone() -> None:
    with pytest.raises(ValueError, match='Linear has no backbone'):
        find_backbone(nn.Linear(2, 2))


def test_image_is_shown_in_its_own_colours(deformable: Any, tmp_path: Any) -> None:
    made = deformable('DCNv3')
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :, 2] = 200  # red, as OpenCV writes it
    cv2.imwrite(str(tmp_path / 'red.png'), picture)
    parser = cli.build_image_parser('x', 'x', out_dir=str(tmp_path / 'out'))
    rgb = {'num_classes': 2, 'mean': [127.0, 100.0, 90.0], 'std': [60.0, 55.0, 50.0],
           'to_rgb': True}
    for options in ([], ['--cfg-options', f'model.data_preprocessor={rgb}']):
        predictor, images, _ = cli.open_images(parser.parse_args(
            [made.config, made.checkpoint, str(tmp_path / 'red.png'), *options]))
        shown = predictor.show(predictor.read(*images))
        assert shown.shape == (64, 64, 3) and shown[5, 5].tolist() == [200, 0, 0]


def test_images_of_a_classifier_are_normalised_as_in_training(tmp_path: Path) -> None:
    # Its config has the data preprocessor beside the model; the runner puts it in.
    pytest.importorskip('mmpretrain')
    cfg = load_config(str(
        ROOT / 'configs/mini/flash-internimage-pico_1xb48-2k_mini-imagenet-64x64.py'))
    cv2.imwrite(str(tmp_path / 'red.png'), np.full((64, 64, 3), (10, 20, 200), np.uint8))
    predictor = Predictor(cfg, None, 'cpu')
    expected = [(value - mean) / std for value, mean, std in zip(
        (200, 20, 10), cfg.data_preprocessor.mean, cfg.data_preprocessor.std, strict=True)]
    got = predictor.read(tmp_path / 'red.png')
    assert got[0, :, 5, 5].tolist() == pytest.approx(expected, rel=1e-5)
    assert predictor.show(got)[5, 5].tolist() == [200, 20, 10]
    assert not predictor.predict(tmp_path / 'red.png').pred_score.requires_grad


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in folders, with links, hidden files and results of an earlier run among them."""
    root = tmp_path_factory.mktemp('tree')
    for name in ('photos/b.jpg', 'photos/a/x.jpg', 'photos/a/deep/y.PNG', 'photos/c/x.jpg',
                 'photos/.trash/z.jpg', 'photos/._b.jpg', 'photos/out/a/x.jpg', 'odd[1].jpg'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        suffix = Path(name).suffix.lower()
        (root / name).write_bytes(cv2.imencode(suffix, np.zeros((4, 4, 3), np.uint8))[1])
    (root / 'photos' / 'notes.txt').write_text('no image')
    (root / 'photos' / 'a' / 'up').symlink_to('..')
    (root / 'linked').symlink_to('photos/a')
    return root


A, ALL = ['photos/a/deep/y.PNG', 'photos/a/x.jpg'], [
    'photos/a/deep/y.PNG', 'photos/a/x.jpg', 'photos/b.jpg', 'photos/c/x.jpg']


@pytest.mark.parametrize(('sources', 'expected'), [
    (['photos/b.jpg'], {'photos/b.jpg': 'photos'}),
    (['odd[1].jpg'], {'odd[1].jpg': '.'}),  # a file of that name, not a pattern
    (['photos'], dict.fromkeys(ALL, 'photos')),
    (['photos/'], dict.fromkeys(ALL, 'photos/')),
    (['photos/a'], dict.fromkeys(A, 'photos/a')),
    (['photos/.tra?h'], {'photos/.trash/z.jpg': 'photos'}),  # hidden, but asked for
    (['photos/*.jpg'], {'photos/b.jpg': 'photos'}),
    (['photos/*'], dict.fromkeys(ALL, 'photos')),
    (['photos/[ac]/x.jpg'], dict.fromkeys(['photos/a/x.jpg', 'photos/c/x.jpg'], 'photos')),
    (['photos/a/**/*.PNG'], {'photos/a/deep/y.PNG': 'photos/a'}),
    (['*[[]1].jpg'], {'odd[1].jpg': '.'}),
    # in the order of the sources, each image once, whatever it is called
    (['photos/c', 'photos/b.jpg', 'photos/c/x.jpg', './photos/b.jpg'],
     {'photos/c/x.jpg': 'photos/c', 'photos/b.jpg': 'photos'}),
    (['linked/x.jpg', 'photos/a/x.jpg'], {'linked/x.jpg': 'linked'}),
    # results count where they are asked for
    (['photos/out'], {'photos/out/a/x.jpg': 'photos/out'}),
    (['photos/out/a/x.jpg'], {'photos/out/a/x.jpg': 'photos/out/a'}),
])
def test_images_of_files_folders_and_patterns(tree: Path, monkeypatch: pytest.MonkeyPatch,
                                              sources: list[str], expected: dict) -> None:
    monkeypatch.chdir(tree)
    found, skipped = find_images(sources, skip_bad=False, out_dir='photos/out')
    assert (found, list(found), skipped) == (expected, list(expected), 0)


@pytest.mark.parametrize('source', ['absent.jpg', 'photos/*.gif', 'absent/**/*.jpg', 'photos/*.txt',
                                    ''])
def test_sources_without_images_are_named(tree: Path, monkeypatch: pytest.MonkeyPatch,
                                          source: str) -> None:
    monkeypatch.chdir(tree)
    with pytest.raises(UserError) as caught:
        find_images(['photos', source], skip_bad=True)
    assert (caught.value.name, caught.value.found) == ('images', f'got {source}')
