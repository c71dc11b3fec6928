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
# Every deliberate difference from a published value beside the names of steps and classes:
# - Heads for Cityscapes and for Mapillary's pictures have its 19 classes. The published ones of
#   UperNet and SegFormer have 150, of which 131 never occur; such a file starts a training of ours
#   with all but the last layers.
# - UperNet on Cityscapes starts from UperNet's weights of Mapillary; the files name SegFormer's.
# - Mask2Former's test flags for panoptic and instance results, which no segmentor reads.
OWN_CLASSES = {'Cityscapes': 19, 'Mapillary Vistas': 19}
MASK_COSTS = [('mmdet.ClassificationCost', 2.0), ('mmdet.CrossEntropyLossCost', 5.0),
              ('mmdet.DiceCost', 5.0)]
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
    assert list(built.backbone.out_indices) == backbone.get('out_indices', [0, 1, 2, 3])
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
    classes = OWN_CLASSES.get(row['dataset'])
    for name in ('decode_head', 'auxiliary_head'):
        ours, theirs = recipes.plain(cfg.model.get(name)), recipe['head'].get(name)
        if row['method'] == 'Mask2Former' and ours:
            compare_mask_heads(ours, theirs)
        elif ours:
            assert theirs['num_classes'] == 150
            assert ours == {**theirs, 'num_classes': classes or 150}
        else:
            assert theirs is None


def compare_mask_heads(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Heads of Mask2Former, ours in the terms of mmdet 3, theirs in those of mmdet 2.x."""
    for name in ('in_channels', 'feat_channels', 'out_channels', 'num_queries', 'num_classes',
                 'num_transformer_feat_level', 'enforce_decoder_input_project',
                 'positional_encoding'):
        expected = dict(theirs, positional_encoding={
            key: theirs['positional_encoding'][key] for key in ('num_feats', 'normalize')})[name]
        assert ours[name] == expected, name
    for name in ('loss_cls', 'loss_mask', 'loss_dice'):
        for key, value in ours[name].items():
            assert f'mmdet.{theirs[name][key]}' == value if key == 'type' else (
                theirs[name][key] == value), (name, key)
    encoder, theirs_encoder = (head['pixel_decoder']['encoder'] for head in (ours, theirs))
    decoder, theirs_decoder = (head['transformer_decoder'] for head in (ours, theirs))
    for part, published in ((encoder, theirs_encoder), (decoder, theirs_decoder)):
        assert part['num_layers'] == published['num_layers']
        layer, layers = part['layer_cfg'], published['transformerlayers']
        for name, options in (('self_attn_cfg', 'attn_cfgs'), ('cross_attn_cfg', 'attn_cfgs'),
                              ('ffn_cfg', 'ffn_cfgs')):
            for key in set(layer.get(name, {})) & set(layers[options]) - {'batch_first'}:
                assert layer[name][key] == layers[options][key], (name, key)
    cost, costs = ours['train_cfg']['assigner']['match_costs'], MASK_COSTS
    assert [(each['type'], each['weight']) for each in cost] == costs


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
    parts = loader.dataset.get('datasets', [loader.dataset])
    # The class of ours does what the published pipeline does in a step of its own.
    mapillary = recipe['data']['train_type'] == 'MapillaryDataset'
    assert {part.type for part in parts} == {
        'MapillaryAsCityscapes' if mapillary else recipe['data']['train_type']}
    places = recipe['data']['train_ann']
    assert [part.data_prefix.seg_map_path.replace('v1.2/', '') for part in parts] == (
        places if isinstance(places, list) else [places])
    assert all(part.pipeline == parts[0].pipeline for part in parts)
    steps = {step.type: step for step in parts[0].pipeline}
    published = dict(recipe['augmentation']['summary'])
    assert ('MapillaryHack' in published) == mapillary
    published.pop('MapillaryHack', None)
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
    # What the data set says, unless the step does; three classes of sets say it by themselves.
    says = parts[0].get('reduce_zero_label', parts[0].type in (
        'ADE20KDataset', 'NYUDepthV2Dataset', 'PascalContextDataset59'))
    assert (steps['LoadAnnotations'].get('reduce_zero_label', says), says) == (
        annotations.get('reduce_zero_label', False),) * 2
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
    if row['published_config'].endswith('cocostuff2ade20k_ss.py'):  # its _ms file names others
        ratios = recipes.published(row['published_config'].replace('_ss.py', '_ms.py'))[
            'test']['img_ratios']
    width, height = recipe['test']['img_scale']
    assert [list(step.scale) for step in augment[0]] == [
        [pytest.approx(width * ratio), pytest.approx(height * ratio)] for ratio in ratios]
    assert [step.prob for step in augment[-3]] == [0.0, 1.0]
    single = [step.type for step in cfg.test_dataloader.dataset.pipeline]
    assert ('ResizeToMultiple' in single) == (len(augment) == 5)


@rows
def test_training_starts_from_the_published_weights(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    start, whole = recipe['pretrained']['backbone'], recipe['pretrained']['load_from']
    own = cfg.model.backbone.get('init_cfg')
    if whole:
        # UperNet's files name SegFormer's, of which the head would not fit.
        method = row['published_config'].split('/')[-1].split('_')[0]
        assert cfg.load_from == whole.replace('segformer', method) and not own
    elif start:
        assert own.checkpoint == start['checkpoint'] and not cfg.load_from
    else:  # ConvNeXt names them on the command line
        assert row['family'] == 'ConvNeXt' and not cfg.load_from
        assert ('in21k' in own.checkpoint) == (row['pretraining'] == 'ImageNet-22K')
