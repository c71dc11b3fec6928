"""Prediction of single images and folders, for every task."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement, InstanceData
from mmpretrain.structures import DataSample
from pycocotools import mask as coco_mask

from mmdcn.apis.drawing import describe_sample, draw_sample, mask_to_rle
from tools import predict


def test_classifier(trained, tmp_path):
    system = trained('classifier')
    image = system.data / 'val' / 'dark' / '0.jpg'
    assert predict.main([system.config, system.checkpoint, str(image),
                         '--out-dir', str(tmp_path / 'out')]) == 0
    result = json.loads((tmp_path / 'out' / '0.json').read_text())
    assert [entry['name'] for entry in result['top5']] in (['dark', 'light'], ['light', 'dark'])
    assert sum(entry['score'] for entry in result['top5']) == pytest.approx(1)
    assert result['image'] == str(image)
    assert cv2.imread(str(tmp_path / 'out' / '0.jpg')) is not None


@pytest.mark.parametrize(('top', 'named'), [('1', 1), ('7', 2)])
def test_number_of_classes(trained, tmp_path, top, named):
    system = trained('classifier')
    image = system.data / 'val' / 'light' / '1.jpg'
    assert predict.main([system.config, system.checkpoint, str(image), '--top', top,
                         '--out-dir', str(tmp_path)]) == 0
    result = json.loads((tmp_path / '1.json').read_text())
    scores = [entry['score'] for entry in result[f'top{top}']]
    assert len(scores) == named and scores == sorted(scores, reverse=True)


def test_caption_names_as_many_classes(monkeypatch, tmp_path):
    visualizer = VISUALIZERS.build({'type': 'mmpretrain.UniversalVisualizer', 'name': 'caption'})
    visualizer.dataset_meta = {'classes': ['ant', 'bee', 'cat']}
    captions = []
    monkeypatch.setattr('matplotlib.axes.Axes.text',
                        lambda self, x, y, text, **kwargs: captions.append(text))
    sample = DataSample().set_pred_score(torch.tensor([0.1, 0.7, 0.2])).set_pred_label(1)
    for top in (1, 2):
        draw_sample(visualizer, np.zeros((300, 300, 3), np.uint8), sample,
                    str(tmp_path / 'x.jpg'), score_thr=0, with_truth=False, top=top)
    assert [' '.join(caption.split()) for caption in captions] == [
        'Prediction: 1, 0.70 (bee)', 'Prediction: 1, 0.70 (bee) 2, 0.20 (cat)']
    assert sample.pred_label.tolist() == [1]


def test_features(trained, tmp_path):
    system = trained('classifier')
    image = system.data / 'val' / 'dark' / '0.jpg'
    assert predict.main([system.config, system.checkpoint, str(image), '--out-dir', str(tmp_path),
                         '--features', 'backbone.layer*', 'head.fc']) == 0
    with np.load(tmp_path / '0_features.npz') as arrays:
        assert arrays['input_size'].tolist() == [64, 64]
        assert arrays['head.fc'].shape == (1, 2)
        assert arrays['backbone.layer1'].shape[2:] == (32, 32)
        assert len(arrays) == 9
        logits = torch.from_numpy(arrays['head.fc'][0])
    top5 = json.loads((tmp_path / '0.json').read_text())['top5']
    assert top5[0]['score'] == pytest.approx(logits.softmax(0).max().item(), rel=1e-5)


def test_features_of_a_detector(trained, tmp_path):
    system = trained('detector')
    image = system.data / 'images' / '002.jpg'
    assert predict.main([system.config, system.checkpoint, str(image), '--out-dir', str(tmp_path),
                         '--features', 'neck', 'rpn_head.rpn_conv']) == 0
    with np.load(tmp_path / '002_features.npz') as arrays:
        assert arrays['input_size'].tolist() == [64, 64]  # 48 x 64, padded
        levels = [arrays[name].shape for name in arrays if name.startswith('neck')]
        called = [arrays[name].shape for name in arrays if name.startswith('rpn_head.rpn_conv')]
    assert levels == called == [(1, 16, size, size) for size in (16, 8, 4, 2, 1)]


@pytest.mark.parametrize(('options', 'words'), [
    (['--features', 'backbone.layer9'], "got 'backbone.layer9'"),
    (['--top', '0'], '--top is not valid: got 0'),
])
def test_bad_options(trained, tmp_path, capsys, options, words):
    system = trained('classifier')
    image = system.data / 'val' / 'dark' / '0.jpg'
    assert predict.main([system.config, system.checkpoint, str(image),
                         '--out-dir', str(tmp_path / 'out'), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_detector(trained, tmp_path, capsys):
    system = trained('detector')
    assert predict.main([system.config, system.checkpoint, str(system.data / 'images'),
                         '--out-dir', str(tmp_path), '--score-thr', '0']) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith('predict.py: 6 images in ')
    objects = json.loads((tmp_path / '001.json').read_text())['objects']
    assert len(objects) == 5
    for entry in objects:
        x1, y1, x2, y2 = entry['box']
        assert 0 <= x1 <= x2 <= 64 and 0 <= y1 <= y2 <= 48
        assert entry['name'] == ('box', 'disk')[entry['label']] and 0 <= entry['score'] <= 1
        assert coco_mask.decode(entry['mask']).shape == (48, 64)
    assert cv2.imread(str(tmp_path / '001.jpg')).shape == (48, 64, 3)


def test_segmentor(trained, tmp_path):
    system = trained('segmentor')
    assert predict.main([system.config, system.checkpoint, str(system.data / 'images'),
                         '--out-dir', str(tmp_path)]) == 0
    labels = cv2.imread(str(tmp_path / '2_labels.png'), cv2.IMREAD_UNCHANGED)
    shares = json.loads((tmp_path / '2.json').read_text())['class_shares']
    assert labels.shape == (48, 64) and sum(shares.values()) == pytest.approx(1)
    for label, name in enumerate(('ground', 'box')):
        assert shares.get(name, 0) == pytest.approx((labels == label).mean())
    assert cv2.imread(str(tmp_path / '2.jpg')).shape == (48, 64, 3)


@pytest.mark.parametrize('mask', [
    np.zeros((3, 4)), np.ones((3, 4)), np.eye(7), np.random.default_rng(0).random((90, 70)) > 0.5,
    np.pad(np.ones((300, 400)), ((40, 1), (0, 200))), np.zeros((0, 5)),
])
def test_masks_are_those_of_pycocotools(mask):
    expected = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    found = mask_to_rle(mask)
    assert found['size'] == list(mask.shape)
    if mask.size:
        assert found['counts'] == expected['counts'].decode()
        assert np.array_equal(coco_mask.decode(found), mask)


def test_objects_below_the_threshold_are_dropped():
    sample = BaseDataElement()
    sample.pred_instances = InstanceData(bboxes=torch.eye(4)[:2], labels=torch.tensor([1, 7]),
                                         scores=torch.tensor([0.2, 0.9]))
    objects = describe_sample(sample, ['a', 'b'], 0.5)['objects']
    assert objects == [{'box': [0, 1, 0, 0], 'label': 7, 'name': '7',
                        'score': pytest.approx(0.9)}]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A user's photos in the working folder, and their bytes."""
    monkeypatch.chdir(tmp_path)
    for name in ('photos/a.png', 'photos/a.jpg', 'photos/trip/a.jpg', 'more/b.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(name, np.full((32, 32, 3), len(name), np.uint8))
    return {path: path.read_bytes() for path in tmp_path.rglob('*.*')}


def test_every_image_has_results_of_its_own(trained, photos, capsys):
    system = trained('classifier')
    argv = [system.config, system.checkpoint, 'photos', 'more/*.jpg', 'photos/a.jpg']
    for _ in range(2):  # the second time over the results of the first
        assert predict.main([*argv, '--out-dir', 'photos/out', '--features', 'head.fc']) == 0
        assert 'predict.py: 4 images in ' in capsys.readouterr().out
    found = sorted(path.relative_to('photos/out') for path in Path('photos/out').rglob('*.*'))
    names = {'a.jpg': 'photos/a.jpg', 'a.png': 'photos/a.png', 'trip/a': 'photos/trip/a.jpg',
             'b': 'more/b.jpg'}
    assert found == sorted(Path(f'{name}{end}') for name in names
                           for end in ('.jpg', '.json', '_features.npz'))
    for name, image in names.items():
        assert json.loads(Path(f'photos/out/{name}.json').read_text())['image'] == image
    assert all(path.read_bytes() == content for path, content in photos.items())


@pytest.mark.parametrize(('image', 'out_dir'), [
    ('photos', 'photos'), ('photos/a.jpg', 'photos'), ('photos/a.png', 'photos/trip/..'),
    ('photos/**/*.jpg', './photos')])
def test_results_never_lie_beside_the_images(trained, photos, capsys, image, out_dir):
    system = trained('classifier')
    assert predict.main([system.config, system.checkpoint, image, '--out-dir', out_dir]) == 2
    assert '--out-dir is not valid' in (said := capsys.readouterr().err)
    assert 'beside the image photos/' in said
    assert {path: path.read_bytes() for path in Path.cwd().rglob('*.*')} == photos


def test_a_config_in_json_is_not_written_over(trained, photos, capsys):
    system = trained('classifier')
    Config.fromfile(system.config).dump('predictions.json')
    before = Path('predictions.json').read_bytes()
    Path('photos/a.jpg').rename('photos/predictions.jpg')
    assert predict.main(['predictions.json', system.checkpoint, 'photos/predictions.jpg',
                         '--out-dir', '.']) == 2
    assert 'which is the input predictions.json' in capsys.readouterr().err
    assert Path('predictions.json').read_bytes() == before


def test_a_failure_while_drawing_leaves_no_part_of_a_picture(trained, photos, monkeypatch, capsys):
    system = trained('classifier')

    def fill_the_disk(image, path, *args, **kwargs):
        Path(path).write_bytes(b'half')
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr('mmcv.imwrite', fill_the_disk)
    assert predict.main([system.config, system.checkpoint, 'more', '--out-dir', 'out']) == 2
    assert 'disk is not valid: No space left on device; free space' in capsys.readouterr().err
    assert not list(Path('out').iterdir())
