"""Predictions of every task as plain numbers, ready for JSON."""
from __future__ import annotations

import json
import pickle
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.evaluator import DumpResults
from mmengine.structures import BaseDataElement, InstanceData, PixelData

import mmdcn.engine  # noqa: F401  (mmengine writes whole files)
from mmdcn.apis.drawing import (
    DrawPredictionsHook,
    describe_sample,
    mask_to_rle,
    read_image,
    write_image,
)
from mmdcn.errors import UserError

CLASSES = ['cat', 'dog', 'cow']


def test_masks_become_coco_run_lengths():
    coco = pytest.importorskip('pycocotools.mask')
    mask = np.random.default_rng(0).random((7, 5)) > 0.4
    rle = json.loads(json.dumps(mask_to_rle(mask)))
    assert rle['size'] == [7, 5]
    assert (coco.decode(rle).astype(bool) == mask).all()


def test_objects_above_the_threshold():
    pytest.importorskip('pycocotools')
    instances = InstanceData(
        bboxes=torch.tensor([[1., 2., 3., 4.], [0., 0., 9., 9.]]), labels=torch.tensor([1, 5]),
        scores=torch.tensor([0.9, 0.2]), masks=torch.ones(2, 3, 3, dtype=torch.bool))
    found = describe_sample(BaseDataElement(pred_instances=instances), CLASSES, 0.5)['objects']
    assert [(item['box'], item['name']) for item in found] == [([1, 2, 3, 4], 'dog')]
    assert found[0]['score'] == pytest.approx(0.9) and found[0]['mask']['size'] == [3, 3]
    everything = describe_sample(BaseDataElement(pred_instances=instances), CLASSES, 0.1)
    assert everything['objects'][1]['name'] == '5'  # beyond the names: the number


def test_shares_of_a_label_map():
    labels = torch.tensor([[[0, 0, 2, 2], [0, 0, 0, 0]]])
    sample = BaseDataElement(pred_sem_seg=PixelData(data=labels))
    assert describe_sample(sample, CLASSES, 0.5) == {'class_shares': {'cat': 0.75, 'cow': 0.25}}


@pytest.mark.parametrize('top', [1, 2, 9])
def test_best_classes_first(top):
    sample = BaseDataElement()
    sample.set_field(torch.tensor([0.1, 0.7, 0.2]), 'pred_score')
    found = describe_sample(sample, CLASSES, 0.5, top)[f'top{top}']
    assert [item['name'] for item in found] == ['dog', 'cow', 'cat'][:top]


def test_images_are_read_as_rgb(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 2] = 255  # red, as OpenCV writes it
    cv2.imwrite(str(tmp_path / 'red.png'), picture)
    image = read_image(str(tmp_path / 'red.png'))
    assert image.shape == (4, 6, 3) and image[0, 0].tolist() == [255, 0, 0]
    (tmp_path / 'text.png').write_text('no image')
    with pytest.raises(ValueError, match=r'text\.png cannot be decoded'):
        read_image(str(tmp_path / 'text.png'))


def test_pictures_of_equal_names_are_all_kept(tmp_path):
    paths = [f'{tmp_path}/{name}' for name in ('a_b/c.jpg', 'a/b_c.jpg', 'a/b_c.png', 'd/c.jpg')]
    # a data set may hold a picture twice
    infos = [{'img_path': path} for path in [*paths, paths[0]]]
    dataset = type('Data', (), {'get_data_info': lambda self, i: infos[i],
                                '__len__': lambda self: len(infos)})()
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset))
    hook = DrawPredictionsHook(str(tmp_path / 'out'))
    hook.before_run(runner)
    assert hook._places == {path: f'{tmp_path}/out/{name}' for path, name in zip(
        paths, ('a_b/c', 'a/b_c.jpg', 'a/b_c.png', 'd/c'), strict=True)}
    (tmp_path / 'd').mkdir()
    with pytest.raises(UserError, match='^show_dir is not valid: .*beside the image .*/d/c.jpg'):
        DrawPredictionsHook(str(tmp_path)).before_run(runner)


@pytest.mark.parametrize('kind', ['image', 'results'])
def test_files_are_whole_or_as_before(tmp_path, monkeypatch, kind):
    path = tmp_path / ('a.png' if kind == 'image' else 'a.pkl')

    def write(number):
        if kind == 'image':
            write_image(path, np.full((4, 4), number, np.uint8))
        else:
            assert DumpResults(str(path)).compute_metrics([number]) == {}
    write(7)
    assert (cv2.imread(str(path))[0, 0, 0] if kind == 'image' else
            pickle.loads(path.read_bytes())[0]) == 7
    before = path.read_bytes()
    monkeypatch.setattr('os.fsync', lambda handle: (_ for _ in ()).throw(OSError(28, 'No space')))
    with pytest.raises(OSError, match='No space'):
        write(8)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before
