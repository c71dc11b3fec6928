"""COCO detectors of InternImage, FlashInternImage and ConvNeXt against their published recipes."""
from __future__ import annotations

from typing import Any

import pytest

from mmdcn.analysis.model_zoo import read_zoo
from tests.configs import recipes
from tests.helpers import ROOT

ROWS = [row for row in read_zoo(ROOT / 'docs/model_zoo.json')['rows']
        if row['task'] == 'detection' and row['dataset'] == 'COCO' and row['config']
        and row.get('published_config') and not row['model'].startswith('ViTDet')]

# Every deliberate difference from a published value: field -> (published, ours, reason).
SAME_HEAD = ('the same layers: mmdet\'s shorthand has four convolutions of 256 channels and one '
             'linear layer')
DEVIATIONS: dict[str, tuple[Any, Any, str]] = {
    'roi_head.bbox_head.*.type': ('ConvFCBBoxHead', 'Shared4Conv1FCBBoxHead', SAME_HEAD),
    'roi_head.bbox_head.*.num_shared_convs': (4, recipes.ABSENT, SAME_HEAD),
    'roi_head.bbox_head.*.num_shared_fcs': (1, recipes.ABSENT, SAME_HEAD),
}
DCNV4_HEAD: dict[str, tuple[Any, Any, str]] = {  # L 1x alone
    'roi_head.bbox_head.*.type': ('DCNv4FCBBoxHead', 'Shared4Conv1FCBBoxHead',
                                  'without DCNv4 layers it is the same head'),
    'roi_head.bbox_head.*.with_dcn': (False, recipes.ABSENT, 'as above'),
}
DCNV4_DEVIATIONS: dict[str, tuple[Any, Any, str]] = {
    'neck.type': ('FPN_vitdet', 'FPN', 'mmdet\'s FPN with this norm has the same layers'),
    'neck.use_residual': (True, recipes.ABSENT, 'the top-down path, which mmdet\'s FPN always has'),
    'neck.norm_cfg': ({'type': 'LN', 'requires_grad': True},
                      {'type': 'mmpretrain.LN2d', 'eps': 1e-6}, 'the same norm over channels'),
}
CONVNEXT_DEVIATIONS: dict[str, tuple[Any, Any, str]] = {
    f'{cfg}.{name}': (value, recipes.ABSENT, 'mmdet 3 has no such option, and does this')
    for cfg, count in (('test_cfg.rpn', 1000), ('train_cfg.rpn_proposal', 2000))
    for name, value in (('nms_across_levels', False), ('nms_post', count))}
G_DEVIATIONS: dict[str, tuple[Any, Any, str]] = {
    f'{part}_ffn_type': ('EfficientFFN', recipes.ABSENT,
                         'the same function in chunks; the converter joins their weights')
    for part in ('encoder', 'decoder')}
ASSUMED_BATCH = 16  # where nothing published names the number of GPUs


def case(row: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    return recipes.published(row['published_config']), recipes.load(ROOT / row['config'])


rows = pytest.mark.parametrize('row', ROWS, ids=lambda row: row['config'].split('/')[-1][:-3])


def test_every_published_recipe_has_a_config() -> None:
    mapped = {row['published_config'] for row in read_zoo(ROOT / 'docs/model_zoo.json')['rows']
              if row.get('published_config') and row['config']}
    # DCNv4's kernel under DCNv3's name, without a result: here `core_op` says which.
    example = 'InternImage/detection/configs/coco/mask_rcnn_internimage_t_fpn_1x_coco_with_dcnv4.py'
    assert {record['id'] for record in recipes.all_published('detection')
            if record['dataset'] == 'COCO' and 'detectron2' not in record['id']
            } - mapped == {example}


@rows
def test_parameters_train_as_published(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    model = recipes.build(ROOT / row['config'])
    assert not recipes.different(recipes.parameter_groups(cfg, model),
                             recipes.expected_groups(recipe, model))


@rows
def test_backbone_is_the_published_one(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    backbone = recipe['architecture']['backbone']
    if 'ConvNeXt' in row['model']:
        built = recipes.build(ROOT / row['config']).backbone
        assert list(built.depths) == backbone['depths']
        assert list(built.channels) == backbone['dims']
        assert cfg.model.backbone.layer_scale_init_value == backbone['layer_scale_init_value']
    else:
        built = recipes.build(ROOT / row['config']).backbone
        for name in set(backbone) & set(vars(built.cfg)):
            expected = [] if name.endswith('ids') and backbone[name] is None else backbone[name]
            assert recipes.plain(getattr(built.cfg, name)) == expected, name
        assert cfg.model.backbone.get('with_cp', False) == backbone['with_cp']
        indices = backbone['out_indices']
        # A composite backbone lists all that the assisting half feeds to the lead; ours says what
        # each half gives to the detector.
        assert list(built.out_indices) == (indices[1] if isinstance(indices[0], list) else indices)
    assert cfg.model.backbone.drop_path_rate == backbone['drop_path_rate']


@rows
def test_head_differs_from_the_framework_as_published(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    deviations = dict(DEVIATIONS)
    if recipe['id'].startswith('DCNv4'):
        deviations |= DCNV4_DEVIATIONS
    if row['config'].endswith('cascade-mask-rcnn_flash-internimage-l_fpn_8xb2-1x_coco.py'):
        deviations |= DCNV4_HEAD
    if 'ConvNeXt' in row['model']:
        deviations |= CONVNEXT_DEVIATIONS
    if row['model'] == 'InternImage-G':
        deviations |= G_DEVIATIONS
    for path, (_, value) in recipe['head_differs_from_framework']['values'].items():
        if path in deviations:
            stated, value, _ = deviations[path]
            assert recipe['head_differs_from_framework']['values'][path][1] == stated, path
        elif path == 'roi_head.bbox_head.*.loss_bbox.beta':
            value = recipes.ABSENT
        for got in recipes.look_up(cfg.model, recipes.RENAMED.get(path, path)):
            assert recipes.plain(got) == value, path
    neck = recipe['architecture']['neck']
    neck = neck[0] if isinstance(neck, list) else neck
    assert list(cfg.model.neck.in_channels) == neck['in_channels']
    assert cfg.model.neck.num_outs == neck['num_outs']


@rows
def test_schedule_is_the_published_one(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    runner, lr = recipe['schedule']['runner'], recipe['schedule']['lr_config']
    assert cfg.train_cfg.get('max_epochs') == runner.get('max_epochs')
    assert cfg.train_cfg.get('max_iters') == runner.get('max_iters')
    warmup, *steps = cfg.param_scheduler
    assert warmup.type == 'LinearLR' and not warmup.by_epoch
    assert (warmup.begin, warmup.end, warmup.start_factor) == (
        0, lr['warmup_iters'], lr['warmup_ratio'])
    assert [list(step.milestones) for step in steps] == ([lr['step']] if lr['step'] else [])
    assert all((step.begin, step.end, step.gamma) == (0, runner['max_epochs'], 0.1)
               for step in steps)
    clip = cfg.optim_wrapper.get('clip_grad')
    assert (clip and clip['max_norm']) == (recipe['grad_clip'] and recipe['grad_clip']['max_norm'])
    assert (cfg.optim_wrapper.type == 'AmpOptimWrapper') == bool(
        recipe['amp'] and recipe['amp']['optimizer_config']['use_fp16'])
    assert cfg.optim_wrapper.optimizer.type == recipe['optimizer']['type']
    hooks = cfg.get('custom_hooks') or []
    assert [(hook.type, hook.ema_type, hook.momentum, hook.update_buffers) for hook in hooks] == [
        ('EMAHook', 'ExpMomentumEMA', hook['momentum'], True) for hook in recipe['ema'] or []]


@rows
def test_data_is_the_published_one(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    loader = cfg.train_dataloader
    assert loader.batch_size == recipe['batch']['samples_per_gpu']
    assert cfg.auto_scale_lr.base_batch_size == (
        recipe['batch']['total_follow'] or ASSUMED_BATCH)
    assert recipes.pipeline_summary(loader.dataset.pipeline) == recipes.published_summary(recipe)
    assert loader.dataset.ann_file in recipe['data']['train_ann']
    # mmdet 2.x drops pictures without objects unless told otherwise.
    assert loader.dataset.filter_cfg.filter_empty_gt == (
        recipe['data']['filter_empty_gt'] is not False)
    normalise, = recipe['augmentation']['summary']['Normalize']
    preprocessor = cfg.model.data_preprocessor
    assert (list(preprocessor.mean), list(preprocessor.std), preprocessor.bgr_to_rgb) == (
        normalise['mean'], normalise['std'], normalise['to_rgb'])
    assert preprocessor.pad_size_divisor == recipe['test']['pad'][0]['size_divisor']


@rows
def test_test_settings_are_the_published_ones(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    resize, = [step for step in cfg.test_dataloader.dataset.pipeline if step.type == 'Resize']
    assert list(resize.scale) == recipe['test']['img_scale'] and resize.keep_ratio
    stated = recipe['test']['test_cfg']
    for name, value in (stated.get('rpn') or {}).items():
        if name not in ('nms_post', 'nms_across_levels'):
            assert recipes.plain(cfg.model.test_cfg.rpn[name]) == value
    for name, value in (stated.get('rcnn') or {}).items():
        assert recipes.plain(cfg.model.test_cfg.rcnn[name]) == value
    assert cfg.model.test_cfg.get('max_per_img') == stated.get('max_per_img')
    assert cfg.test_dataloader.dataset.ann_file in recipe['test']['ann']


@rows
def test_training_starts_from_the_published_weights(row: dict[str, Any]) -> None:
    recipe, cfg = case(row)
    start = recipe['pretrained']['backbone']
    if start:
        assert cfg.model.backbone.init_cfg.checkpoint == start['checkpoint']
    elif 'ConvNeXt' in row['model']:  # named on the command line there
        name = cfg.model.backbone.init_cfg.checkpoint
        assert ('in21k' in name) == (row['pretraining'] == 'ImageNet-22K')
    if recipe['pretrained']['load_from']:
        # Of the old framework: what is loaded is the converted file, and the docstring says so.
        name = recipe['pretrained']['load_from'].split('/')[-1]
        text = (ROOT / row['config']).read_text()
        assert f'tools/convert_checkpoint.py {name} DST' in text
        assert cfg.load_from and not cfg.load_from.startswith('http')
