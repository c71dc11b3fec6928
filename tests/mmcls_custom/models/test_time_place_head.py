"""The head that reads time and place: numbers, names, training, prediction."""
from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip('mmpretrain.models')

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample

from mmcls_custom.models import TimePlaceHead
from mmdcn.apis.config import load_config
from mmdcn.checkpoints import CheckpointError, load_state_dict, read_checkpoint
from mmdcn.errors import UserError
from tests.helpers import ROOT
from tests.mmcls_custom import inaturalist
from tools import predict, train
from tools import test as test_tool

CONFIG = ROOT / ('configs/inaturalist/'
                 'internimage-h_time-place_32xb16-100e_inaturalist2018-384x384.py')


def head(**kwargs):
    torch.manual_seed(0)
    built = TimePlaceHead(5, 12, **kwargs)
    for value in built.parameters():
        torch.nn.init.normal_(value)
    return built


def linear(x, state, name):
    return x @ state[f'{name}.weight'].T + state[f'{name}.bias']


def norm(x, state, name, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], state[f'{name}.weight'], state[f'{name}.bias'], eps)


def plain_scores(features, time_place, state):
    """The published model in plain functions."""
    parts = []
    for name, part in (('meta_head_1', time_place[:, :4]), ('meta_head_2', time_place[:, 4:])):
        x = norm(linear(part, state, f'{name}.0').relu(), state, f'{name}.2')
        y = norm(linear(x, state, f'{name}.3.w1').relu(), state, f'{name}.3.norm_fn1')
        parts.append(x + norm(linear(y, state, f'{name}.3.w2').relu(), state, f'{name}.3.norm_fn2'))
    meta = norm(torch.cat(parts, 1), state, 'meta_norm', 1e-6)
    return linear(features, state, 'fc') + linear(meta, state, 'meta_head')


def test_scores_are_those_of_picture_time_and_place():
    built = head()
    features, time_place = torch.randn(3, 12), torch.randn(3, 7)
    torch.testing.assert_close(
        built((torch.zeros(0), features), time_place),
        plain_scores(features, time_place, built.state_dict()), rtol=1e-5, atol=1e-5)


def test_names_and_shapes_are_the_published_ones():
    shapes = {name: tuple(value.shape) for name, value in head().state_dict().items()}
    expected = {'fc.weight': (5, 12), 'fc.bias': (5,), 'meta_norm.weight': (128,),
                'meta_norm.bias': (128,), 'meta_head.weight': (5, 128), 'meta_head.bias': (5,)}
    for name, inputs in (('meta_head_1', 4), ('meta_head_2', 3)):
        expected |= {f'{name}.0.weight': (64, inputs), f'{name}.3.w1.weight': (64, 64),
                     f'{name}.3.w2.weight': (64, 64)}
        expected |= {f'{name}.{part}': (64,) for part in (
            '0.bias', '2.weight', '2.bias', '3.w1.bias', '3.w2.bias', '3.norm_fn1.weight',
            '3.norm_fn1.bias', '3.norm_fn2.weight', '3.norm_fn2.bias')}
    assert shapes == expected


def samples(*rows):
    made = [DataSample().set_gt_label(i % 5) for i in range(len(rows))]
    for sample, row in zip(made, rows, strict=True):
        if row is not None:
            sample.set_field(row, 'time_place')
    return made


def test_unknown_time_and_place_are_zeros():
    built, features = head(), (torch.randn(2, 12),)
    row = torch.randn(7)
    with torch.no_grad():
        expected = built(features, torch.stack([row, torch.zeros(7)])).softmax(1)
        for given in (row, row.numpy(), row.tolist()):
            got = built.predict(features, samples(given, None))
            torch.testing.assert_close(torch.stack([one.pred_score for one in got]), expected)
        zeros = built(features).softmax(1)
        for given in (None, [None, None], samples(None, None)):
            got = built.predict(features, given)
            torch.testing.assert_close(torch.stack([one.pred_score for one in got]), zeros)


def test_every_parameter_learns_from_the_loss():
    built = head()
    losses = built.loss((torch.randn(2, 12),), samples(torch.randn(7), torch.randn(7)))
    losses['loss'].backward()
    assert all(value.grad.any() for value in built.parameters())


@pytest.mark.parametrize('row', [[0.0] * 6, [[0.0] * 7], [float('nan')] * 7, 1.0])
def test_other_numbers_are_refused(row):
    with pytest.raises(UserError, match='time_place is not valid: got .*, expected 7 finite'):
        head().predict((torch.randn(1, 12),), samples(row))


def test_mixed_pictures_are_refused():
    mixed = samples(None, None)
    mixed[0].set_gt_score(torch.ones(5) / 5)
    with pytest.raises(UserError, match='augments is not valid: got mixed pictures'):
        head().loss((torch.randn(2, 12),), mixed)


def test_fine_tuning_begins_as_published():
    built = TimePlaceHead(500, 64)
    built.init_weights()
    deviations = {name: value.std().item() for name, value in built.named_parameters()
                  if value.ndim > 1}
    assert deviations.pop('fc.weight') == pytest.approx(2e-5, rel=0.05)
    assert list(deviations.values()) == pytest.approx([0.02] * 7, rel=0.2)
    assert not any(value.any() for name, value in built.named_parameters()
                   if name.endswith('bias'))


@pytest.fixture
def config(tmp_path):
    """The config of the published model with a small network on a small set."""
    inaturalist.make(tmp_path / 'set')
    cfg = load_config(str(CONFIG))
    data = dict(dataset=dict(data_root=str(tmp_path / 'set')), num_workers=0, batch_size=2)
    steps = [cfg.train_dataloader.dataset.pipeline, cfg.val_dataloader.dataset.pipeline]
    steps[0][1]['scale'] = steps[1][1]['scale'] = steps[1][2]['crop_size'] = 64
    cfg.merge_from_dict(dict(
        model=dict(backbone=dict(arch='pico', drop_path_rate=0.1), head=dict(
            num_classes=2, in_channels=48), neck=dict(in_channels=(128, 256), channels=32,
                                                      num_heads=2, out_channels=48)),
        data_preprocessor=dict(num_classes=2), train_dataloader=data, val_dataloader=data,
        test_dataloader=data, optim_wrapper=dict(type='OptimWrapper'),
        train_cfg=dict(max_epochs=1), val_evaluator=dict(topk=1), test_evaluator=dict(topk=1)))
    cfg.test_dataloader.dataset.pipeline = cfg.val_dataloader.dataset.pipeline
    cfg.param_scheduler[0].end = 1
    path = tmp_path / 'small.py'
    Config(cfg.to_dict()).dump(path)
    return path


def test_trains_tests_and_predicts(config, tmp_path):
    work = tmp_path / 'work'
    assert train.main([str(config), '--work-dir', str(work), '--seed', '0']) == 0
    checkpoint = (work / 'last_checkpoint').read_text().strip()
    state = read_checkpoint(checkpoint)
    assert state['message_hub']['runtime_info']['iter'] == 1  # counts from 0
    assert state['meta']['dataset_meta']['classes'] == ('Ardea alba', 'Bufo bufo')
    metrics = tmp_path / 'metrics.json'
    assert test_tool.main([str(config), checkpoint, '--work-dir', str(tmp_path / 'test'),
                           '--metrics', str(metrics)]) == 0
    assert 'accuracy/top1' in json.loads(metrics.read_text())
    picture = tmp_path / 'set/train_val2018/Aves/7/0.jpg'
    assert predict.main([str(config), checkpoint, str(picture),
                         '--out-dir', str(tmp_path / 'out')]) == 0
    found = json.loads((tmp_path / 'out/0.json').read_text())
    assert {entry['name'] for entry in found['top5']} == {'Ardea alba', 'Bufo bufo'}


def test_a_head_of_other_classes_is_refused(config, tmp_path, capsys):
    assert train.main([str(config), '--work-dir', str(tmp_path / 'work'), '--cfg-options',
                       'model.head.num_classes=3']) == 2
    assert 'model.head.num_classes is not valid: got 3, expected 2' in capsys.readouterr().err


def test_starts_from_a_classifier_without_time_and_place(config):
    cfg = load_config(str(config))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    pretrained = {name: value.clone() for name, value in model.state_dict().items()
                  if not name.startswith('head.meta_')}
    for name in ('head.fc.weight', 'head.fc.bias'):
        pretrained[name] = torch.randn(21841, *pretrained[name].shape[1:])
    report = load_state_dict(model, pretrained, source='22k', other_classes=True)
    assert len(report.expected_missing) == 28 and not report.missing and not report.mismatched
    assert sorted(report.reinitialised) == ['head.fc.bias', 'head.fc.weight']
    pretrained['head.meta_norm.bias'] = torch.zeros(128)  # half of it is damage
    with pytest.raises(CheckpointError, match='does not fit'):
        load_state_dict(model, pretrained, source='22k', other_classes=True)
