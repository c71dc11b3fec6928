"""Segmentors of InternImage, FlashInternImage and ConvNeXt against their published recipes."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from mmdcn.analysis.model_zoo import read_zoo
from tests.configs import recipes
from tests.helpers import ROOT

ROWS = [row for row in read_zoo(ROOT / 'docs/model_zoo.json')['rows']
        if row['task'] == 'segmentation' and row['config']]
rows = pytest.mark.parametrize('row', ROWS, ids=lambda row: row['config'].split('/')[-1][:-3])


def case(row: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    return recipes.published(row['published_config']), recipes.load(ROOT / row['config'])


@rows
def test_parameters_train_as_published(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    model = recipes.build(ROOT / row['config'])
    assert not recipes.different(recipes.parameter_groups(cfg, model),
                                 recipes.expected_groups(recipe, model))


@rows
def test_model_is_the_published_one(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    backbone, built = recipe['architecture']['backbone'], recipes.build(ROOT / row['config'])
    assert list(built.backbone.out_indices) == backbone['out_indices']
    assert cfg.model.backbone.drop_path_rate == backbone['drop_path_rate']
    if row['family'] == 'ConvNeXt':
        assert list(built.backbone.depths) == backbone['depths']
        assert list(built.backbone.channels) == backbone['dims']
        assert cfg.model.backbone.layer_scale_init_value == backbone['layer_scale_init_value']
    else:
        for name in set(backbone) & set(vars(built.backbone.cfg)):
            expected = [] if name.endswith('ids') and backbone[name] is None else backbone[name]
            assert recipes.plain(getattr(built.backbone.cfg, name)) == expected, name
        assert cfg.model.backbone.get('with_cp', False) == backbone['with_cp']
    for head in ('decode_head', 'auxiliary_head'):
        assert recipes.plain(cfg.model.get(head)) == recipe['head'].get(head)


@rows
def test_schedule_is_the_published_one(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    iterations, lr = recipe['schedule']['runner']['max_iters'], recipe['schedule']['lr_config']
    assert cfg.train_cfg.max_iters == iterations
    assert (lr['policy'], lr['warmup'], lr['power'], lr['min_lr']) == ('poly', 'linear', 1.0, 0.0)
    clip = recipe['grad_clip']
    assert cfg.optim_wrapper.get('clip_grad') == (clip and {'max_norm': clip['max_norm']})
    assert (cfg.optim_wrapper.type == 'AmpOptimWrapper') == bool(
        recipe['amp'] and recipe['amp']['optimizer_config']['use_fp16'])
    assert cfg.optim_wrapper.optimizer.type == recipe['optimizer']['type']
    assert cfg.get('custom_hooks', []) == [] and recipe['ema'] is None
    assert not any(scheduler.by_epoch for scheduler in cfg.param_scheduler)


def test_rate_follows_mmcv_1() -> None:
    """Poly and warm-up begin together; every iteration has the rate that mmcv 1.x gave it."""
    total, warmup, ratio = 400, 15, 1e-6
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    cfg = recipes.load(ROOT / ROWS[0]['config'])
    schedulers = []
    for part in cfg.param_scheduler.copy():
        part = dict(part, begin=part['begin'] // 400)
        part['end'] = warmup if part['end'] == 1500 else total + part['end'] - 160000
        schedulers.append(PARAM_SCHEDULERS.build(dict(part, optimizer=optimizer)))
    for step in range(total):
        warm = 1 - (1 - min(step / warmup, 1)) * (1 - ratio)
        expected = (1 - step / total) * warm
        # The warm-up of mmengine ends one iteration early.
        assert optimizer.param_groups[0]['lr'] == pytest.approx(
            expected, rel=1e-6 if step > warmup else 0.08, abs=2e-6), step
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


@rows
def test_training_data_are_the_published_ones(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    loader = cfg.train_dataloader
    assert loader.batch_size == recipe['batch']['samples_per_gpu']
    assert cfg.auto_scale_lr.base_batch_size == recipe['batch']['total_follow']
    assert loader.dataset.type == recipe['data']['train_type']
    assert loader.dataset.data_prefix.seg_map_path == recipe['data']['train_ann']
    steps = {step.type: step for step in loader.dataset.pipeline}
    published = recipe['augmentation']['summary']
    resize, = published['Resize']
    assert (list(steps['RandomResize'].scale), list(steps['RandomResize'].ratio_range)) == (
        resize['img_scale'], resize['ratio_range'])
    crop, = published['RandomCrop']
    assert recipes.plain(dict(steps['RandomCrop'])) == {'type': 'RandomCrop', **crop}
    assert [{'prob': steps['RandomFlip'].prob}] == published['RandomFlip']
    assert [name for name in steps if name not in ('LoadImageFromFile', 'PackSegInputs')] == [
        {'Resize': 'RandomResize'}.get(name, name) for name in published
        if name not in ('Normalize', 'Pad')]
    annotations, = published['LoadAnnotations']
    assert steps['LoadAnnotations'].get('reduce_zero_label', False) == annotations.get(
        'reduce_zero_label', False)
    normalise, = published['Normalize']
    pad, = published['Pad']
    preprocessor = cfg.model.data_preprocessor
    assert recipes.plain({name: preprocessor[name] for name in (
        'mean', 'std', 'bgr_to_rgb', 'size', 'pad_val', 'seg_pad_val')}) == {
            **pad, 'mean': normalise['mean'], 'std': normalise['std'],
            'bgr_to_rgb': normalise['to_rgb']}


@rows
def test_test_settings_are_the_published_ones(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    published = recipe['test']
    steps = {step.type: step for step in cfg.test_dataloader.dataset.pipeline}
    assert list(steps['Resize'].scale) == published['img_scale'] and steps['Resize'].keep_ratio
    multiples = [step['size_divisor'] for step in published['resize'] if 'size_divisor' in step]
    assert [step.size_divisor for name, step in steps.items()
            if name == 'ResizeToMultiple'] == multiples
    assert recipes.plain(cfg.model.test_cfg) == {
        name: value for name, value in published['test_cfg'].items()
        if name in ('mode', 'crop_size', 'stride')}
    assert cfg.test_dataloader.dataset.data_prefix.seg_map_path == published['ann']
    assert cfg.model.data_preprocessor.get('test_cfg') is None  # no other padding
    assert cfg.train_cfg.val_interval == published['evaluation']['interval']


@rows
def test_many_scales_are_those_of_the_option(row: dict[str, Any]) -> None:
    """Of the published ``--aug-test``: parts of the test scale, not of the picture."""
    recipe, cfg = case(row)
    ratios = recipe['test']['img_ratios'] or (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    augment = next(step for step in cfg.tta_pipeline if step.type == 'TestTimeAug').transforms
    width, height = recipe['test']['img_scale']
    assert [list(step.scale) for step in augment[0]] == [
        [round(width * ratio), round(height * ratio)] for ratio in ratios]
    assert [step.prob for step in augment[-3]] == [0.0, 1.0]
    single = [step.type for step in cfg.test_dataloader.dataset.pipeline]
    assert ('ResizeToMultiple' in single) == (len(augment) == 5)


@rows
def test_training_starts_from_the_published_weights(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    start = recipe['pretrained']['backbone']
    name = cfg.model.backbone.init_cfg.checkpoint
    if start:
        assert name == start['checkpoint']
    else:  # ConvNeXt names them on the command line
        assert row['family'] == 'ConvNeXt'
        assert ('in21k' in name) == (row['pretraining'] == 'ImageNet-22K')
    assert cfg.load_from is None and recipe['pretrained']['load_from'] is None
