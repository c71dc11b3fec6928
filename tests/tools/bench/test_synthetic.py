"""Random batches: their sizes, their annotations, and what a config's own steps make of them."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdcn.apis.config import load_config
from mmdcn.apis.inference import task_scope
from mmdcn.errors import UserError
from tests import tiny
from tests.helpers import ROOT
from tools.bench import synthetic


@pytest.mark.parametrize(('config', 'size'), [
    ('imagenet/flash-internimage-t_8xb512-300e_imagenet-224x224', (224, 224)),
    ('imagenet/internimage-l_8xb64-20e_imagenet-384x384', (384, 384)),
    ('ade20k/upernet_internimage-l_8xb2-160k_ade20k-640x640', (640, 640)),
    ('cityscapes/segformer_internimage-l_pre-mapillary_8xb2-160k_cityscapes-512x1024',
     (512, 1024)),
    ('coco/mask-rcnn_internimage-t_fpn_8xb2-1x_coco', (800, 1280)),
    ('coco/dino-4scale_internimage-l_layer-decay_8xb2-1x_coco', (800, 1280)),
    ('coco/mask-rcnn_vitdet-b_64xb1-184k_coco-1024x1024', (1024, 1024)),
    ('nuscenes/bevformer-v2-t1_r50_16xb1-24e_nuscenes', (640, 1600)),
    ('mini/dino-4scale_flash-internimage-pico_1xb4-3k_mini-coco-160x128', (128, 160)),
    ('mini/upernet_flash-internimage-pico_1xb16-2k_mini-ade-128x128', (128, 128)),
    ('mini/flash-internimage-pico_1xb48-2k_mini-imagenet-64x64', (64, 64))])
def test_size_of_a_config(config: str, size: tuple[int, int]) -> None:
    assert synthetic.default_size(load_config(str(ROOT / f'configs/{config}.py'))) == size


def test_size_of_configs_that_name_none() -> None:
    pipeline = {'test_dataloader': {'dataset': {'pipeline': [{'type': 'PackInputs'}]}}}
    for scope, size in (('mmdet', (800, 1280)), ('mmseg', (512, 512)), (None, (224, 224))):
        cfg = Config({'default_scope': scope, 'model': {}, **pipeline})
        assert synthetic.default_size(cfg) == size


def batch_of(path: Path, train: bool, batch: int = 2) -> dict:
    cfg = load_config(str(path))
    with task_scope(cfg):
        return synthetic.make_batch(cfg, train, (48, 64), batch)


def test_batch_of_a_classifier(tmp_path: Path) -> None:
    path = tiny.make_classifier(tmp_path / 'data')
    data = batch_of(path, train=True, batch=3)
    assert [(image.shape, image.dtype) for image in data['inputs']] == [
        ((3, 48, 64), torch.uint8)] * 3
    assert all(int(sample.gt_label) in (0, 1) for sample in data['data_samples'])
    again = batch_of(path, train=True, batch=3)
    assert all(map(torch.equal, data['inputs'], again['inputs']))
    assert not torch.equal(*data['inputs'][:2])
    assert 'gt_label' not in batch_of(path, train=False)['data_samples'][0]


def test_batch_of_a_detector(tmp_path: Path) -> None:
    path = tiny.make_detector(tmp_path / 'data')
    first, second = batch_of(path, train=True)['data_samples']
    objects = first.gt_instances
    assert len(objects) == len(second.gt_instances) == synthetic.OBJECTS
    assert objects.labels.max() < 2
    boxes = objects.bboxes.tensor
    assert (boxes >= 0).all() and (boxes[:, 2] <= 64).all() and (boxes[:, 3] <= 48).all()
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides >= torch.tensor([64, 48]) / 12.001).all()
    assert (sides <= torch.tensor([64, 48]) / 2.999).all()
    # The masks are the ellipses of the boxes.
    areas = torch.tensor(objects.masks.areas) / sides.prod(1)
    assert areas.mean() == pytest.approx(3.14159 / 4, rel=0.15)
    assert (first.ori_shape, first.img_shape) == ((48, 64), (48, 64))
    assert 'bboxes' not in batch_of(path, train=False)['data_samples'][0].gt_instances


def test_batch_of_a_segmentor(tmp_path: Path) -> None:
    path = tiny.make_segmentor(tmp_path / 'data')
    first, second = batch_of(path, train=True)['data_samples']
    labels = first.gt_sem_seg.data
    assert labels.shape == (1, 48, 64) and set(labels.unique().tolist()) <= {0, 1}
    blocks = labels[0].unflatten(0, (4, 12)).unflatten(2, (4, 16))
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert not torch.equal(labels, second.gt_sem_seg.data)
    assert 'gt_sem_seg' not in batch_of(path, train=False)['data_samples'][0]


def test_steps_within_wrapped_data_sets_are_found() -> None:
    inner = {'type': 'mmdet.LoadAnnotations'}
    loader = {'dataset': {'type': 'Mix', 'pipeline': [{'type': 'PackDetInputs'}],
                          'dataset': {'datasets': [{'pipeline': [inner]}]}}}
    kinds = [synthetic.kind_of(step) for step in synthetic.steps_of(loader)]
    assert kinds == ['PackDetInputs', 'LoadAnnotations']
    assert synthetic.steps_of(None) == []


def test_a_pipeline_that_does_not_pack_is_refused() -> None:
    cfg = Config({'model': {}, 'train_dataloader': {'dataset': {'pipeline': []}}})
    with pytest.raises(UserError, match='train_dataloader has no step that packs'):
        synthetic.make_batch(cfg, True, (32, 32), 1)
