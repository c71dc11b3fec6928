"""nuScenes detectors against their published recipes, as a table and as the published files say."""
from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mmengine.config import Config

from tests.configs import recipes
from tests.helpers import ROOT

FOLDER = ROOT / 'configs/nuscenes'
CLASSES = ['barrier', 'bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle', 'pedestrian',
           'traffic_cone', 'trailer', 'truck']
RANGE = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
MANY = [512, 544, 576, 608, 640, 672, 704, 736, 768]
MEAN, CAFFE_STD = [103.53, 116.28, 123.675], [1.0, 1.0, 1.0]  # blue, green, red
STD = [58.395, 57.12, 57.375]  # red, green, blue


class Row(NamedTuple):
    """What a config says that others do not."""

    frames: list[int]
    groups: int
    augmented: bool
    channels: int | None  # of the fusion
    epochs: int
    step: int
    batch: int = 16
    lr: float = 4e-4
    decay: float | None = None  # of layers; None: the backbone has half the rate
    arch: str | None = None
    neck: list[int] = [512, 1024, 2048]


T8, BOTH = [-7, -6, -5, -4, -3, -2, -1, 0], [-8, 0, 8]
ROWS = {
    't1-base_r50_16xb1-24e': Row([0], 1, False, None, 24, 20),
    't1-base_r50_16xb1-48e': Row([0], 1, False, None, 48, 44),
    't1_r50_16xb1-24e': Row([0], 11, True, None, 24, 20),
    't1_r50_16xb1-48e': Row([0], 11, True, None, 48, 44),
    't2_r50_16xb1-24e': Row([-1, 0], 11, True, None, 24, 20),
    't2_r50_16xb1-48e': Row([-1, 0], 11, True, None, 48, 44),
    't8_r50_16xb1-24e': Row(T8, 11, True, 512, 24, 20),
    'bidirectional_internimage-b_16xb1-24e': Row(
        BOTH, 11, True, None, 24, 20, 16, 4e-4, 0.96, 'base', [224, 448, 896]),
    'bidirectional_internimage-xl_32xb1-24e': Row(
        BOTH, 11, True, None, 24, 20, 32, 5e-4, 0.94, 'xlarge', [384, 768, 1536]),
    'bidirectional_flash-internimage-s_16xb1-24e': Row(
        BOTH, 11, True, None, 24, 20, 16, 4e-4, 0.96, 'small', [160, 320, 640]),
    'bidirectional_flash-internimage-b_16xb1-24e': Row(
        BOTH, 11, True, None, 24, 20, 16, 4e-4, 0.96, 'base', [224, 448, 896]),
}
# Of the published files, which differ from what their names say in one case.
PUBLISHED = {name: f'bevformerv2-r50-{name.split("_")[0]}-{name.split("-")[-1][:-1]}ep'
             for name in ROWS if '_r50_' in name}
WRONG_IN_THE_FILE = {'t2_r50_16xb1-48e': (24, [20])}

rows = pytest.mark.parametrize('name', ROWS)
published = pytest.mark.parametrize('name', PUBLISHED)


def path_of(name: str) -> Path:
    return FOLDER / f'bevformer-v2-{name}_nuscenes.py'


def load(name: str) -> Config:
    return recipes.load(path_of(name))


def record(name: str) -> dict[str, Any]:
    """The published recipe."""
    return recipes.published(
        f'BEVFormer/projects/configs/bevformerv2/{PUBLISHED[name]}.py')


def steps(cfg: Config, loader: str = 'train_dataloader') -> dict[str, dict[str, Any]]:
    """Transforms of a pipeline by type."""
    found = [recipes.plain(step.to_dict()) for step in cfg[loader].dataset.pipeline]
    assert len({step['type'] for step in found}) == len(found)
    return {step.pop('type'): step for step in found}


def test_every_config_has_a_row() -> None:
    assert {path.stem for path in FOLDER.glob('*.py')} == {path_of(name).stem for name in ROWS}


@rows
def test_model(name: str) -> None:
    row, model = ROWS[name], load(name).model
    assert model.type == 'BEVFormerV2' and list(model.frames) == row.frames
    assert (model.num_mono_levels, model.mono_loss_weight) == (5, 1.0)
    assert model.grid_mask == dict(prob=0.7, ratio=0.5)
    head = model.pts_bbox_head
    assert (head.num_groups, head.num_query, head.num_classes) == (row.groups, 900, 10)
    assert (head.bev_h, head.bev_w, head.embed_dims, head.max_num) == (200, 200, 256, 300)
    assert list(head.pc_range) == RANGE
    assert list(head.post_center_range) == [-61.2, -61.2, -10, 61.2, 61.2, 10]
    assert (head.loss_cls_weight, head.loss_bbox_weight) == (2.0, 0.75)
    assert list(head.code_weights) == [1.0] * 8 + [0.2] * 2
    assert head.matcher == dict(type='HungarianMatcher3D', cls_weight=2.0, box_weight=0.75,
                                code_entries=8)
    assert head.get('hybrid_queries') is None
    transformer = head.transformer
    assert (transformer.num_cams, transformer.num_feature_levels) == (6, 4)
    assert transformer.encoder == dict(
        type='BEVFormerEncoder', num_layers=6, num_heads=8, num_points=8, num_heights=4,
        feedforward_channels=512, dropout=0.1)
    assert transformer.decoder == dict(
        type='BEVFormerDecoder', num_layers=6, num_heads=8, num_points=4,
        feedforward_channels=512, dropout=0.1)
    assert transformer.get('fusion', {}).get('inter_channels') == row.channels
    neck = model.img_neck
    assert list(neck.in_channels) == row.neck
    assert (neck.type, neck.out_channels, neck.start_level, neck.num_outs) == (
        'mmdet.FPN', 256, 0, 5)
    assert neck.add_extra_convs == 'on_output' and neck.relu_before_extra_convs


@rows
def test_backbone_and_its_pictures(name: str) -> None:
    row, model = ROWS[name], load(name).model
    backbone, preprocessor = model.img_backbone, model.data_preprocessor
    assert tuple(backbone.out_indices) == (1, 2, 3) and preprocessor.pad_size_divisor == 32
    assert backbone.init_cfg.type == 'Pretrained'
    mean, std = list(preprocessor.mean), list(preprocessor.std)
    if row.arch is None:
        assert (mean, std, preprocessor.bgr_to_rgb) == (MEAN, CAFFE_STD, False)
        assert (backbone.type, backbone.depth, backbone.style) == ('mmdet.ResNet', 50, 'caffe')
        assert (backbone.frozen_stages, backbone.norm_eval) == (-1, False)
        assert (backbone.init_cfg.prefix, model.img_neck.init_cfg.prefix) == (
            'img_backbone.', 'img_neck.')
    else:
        assert (mean, std, preprocessor.bgr_to_rgb) == (MEAN[::-1], STD, True)
        expected = 'FlashInternImage' if 'flash' in name else 'InternImage'
        assert (backbone.type, backbone.arch) == (expected, row.arch)
        assert backbone.init_cfg.prefix == 'backbone.' and backbone.with_cp
        assert model.img_neck.init_cfg.type == 'Xavier'


@rows
def test_perspective_head_is_the_published_one(name: str) -> None:
    import mmdet3d_custom.models.perspective_head as module
    cfg = load(name).model.fcos3d_bbox_head
    assert cfg.norm_cfg == dict(type='BN') and cfg.type == 'PerspectiveHead'
    head = recipes.build_on_meta(lambda: module.MODELS.build(cfg))
    assert list(head.classes) == CLASSES and head.strides == (8, 16, 32, 64, 128)
    assert head.loss_weights == dict(cls=1, box2d_reg=1, centerness=1, box3d=2, conf3d=1, attr=0.2,
                                     speed=0.2)


@rows
def test_schedule(name: str) -> None:
    row, cfg = ROWS[name], load(name)
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=row.epochs, val_interval=4)
    warmup, step = cfg.param_scheduler
    assert warmup == dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=2000)
    assert step == dict(type='MultiStepLR', begin=0, end=row.epochs, by_epoch=True,
                        milestones=[row.step], gamma=0.1)
    wrapper = cfg.optim_wrapper
    assert wrapper.type == 'OptimWrapper'  # not AMP
    assert (wrapper.optimizer.type, wrapper.optimizer.lr, wrapper.optimizer.weight_decay) == (
        'AdamW', row.lr, 0.01)
    assert wrapper.clip_grad == dict(max_norm=35, norm_type=2)
    if row.decay is None:
        assert wrapper.constructor == 'DefaultOptimWrapperConstructor'
        assert wrapper.paramwise_cfg == dict(custom_keys=dict(img_backbone=dict(lr_mult=0.5)))
    else:
        assert wrapper.constructor == 'LayerDecayOptimWrapperConstructor'
        assert wrapper.paramwise_cfg == dict(layer_decay_rate=row.decay)
    assert cfg.sync_bn == 'torch'
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=row.batch)


@rows
def test_data(name: str) -> None:
    row, cfg = ROWS[name], load(name)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = cfg[loader].dataset
        assert dataset.type == 'TemporalNuScenesDataset' and list(dataset.frames) == row.frames
        assert (cfg[loader].batch_size, cfg[loader].num_workers) == (1, 4)
        assert list(dataset.metainfo.classes) == CLASSES
    assert cfg.train_dataloader.dataset.use_valid_flag
    assert cfg.train_dataloader.sampler == dict(type='DefaultSampler', shuffle=True)
    train, test = steps(cfg), steps(cfg, 'test_dataloader')
    order = ['LoadMultiFrameImages', 'DistortViews', 'LoadAnnotations3D', 'AugmentBEV',
             'ObjectRangeFilter', 'ObjectNameFilter', 'AugmentViews', 'PerspectiveTargets',
             'PackTemporalInputs']
    if not row.augmented:
        order.remove('AugmentBEV')
    assert list(train) == order
    assert list(test) == ['LoadMultiFrameImages', 'AugmentViews', 'PackTemporalInputs']
    views = dict(crop=[0, 260, 1600, 900], pad_divisor=32, pad_value=MEAN)
    assert test['AugmentViews'] == dict(heights=[640], flip=0.0, **views)
    if row.augmented:
        assert train['AugmentViews'] == dict(heights=MANY, flip=0.5, **views)
        assert train['AugmentBEV'] == dict(rotation=[-22.5, 22.5], scale=[0.95, 1.05], flip_x=0.5,
                                           flip_y=0.5)
    else:
        assert train['AugmentViews'] == test['AugmentViews']
    assert train['DistortViews'] == dict(brightness_delta=32, contrast_range=[0.5, 1.5],
                                         saturation_range=[0.5, 1.5], hue_delta=18)
    assert train['ObjectRangeFilter'] == dict(point_cloud_range=RANGE)
    assert train['ObjectNameFilter'] == dict(classes=CLASSES)
    assert train['PerspectiveTargets'] == dict(min_points=3, min_visibility=0.2)
    infos = cfg.val_dataloader.dataset
    assert cfg.val_evaluator == dict(
        type='NuScenesMetric', data_root=infos.data_root, metric='bbox',
        ann_file=infos.data_root + infos.ann_file, modality=dict(use_camera=True, use_lidar=False))


@published
def test_published_files_say_the_same(name: str) -> None:
    cfg, recipe = load(name), record(name)
    runner, lr = recipe['schedule']['runner'], recipe['schedule']['lr_config']
    assert WRONG_IN_THE_FILE.get(name, (ROWS[name].epochs, [ROWS[name].step])) == (
        runner['max_epochs'], lr['step'])
    warmup = cfg.param_scheduler[0]
    assert (warmup.end, warmup.start_factor) == (lr['warmup_iters'], lr['warmup_ratio'])
    assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay) == (
        recipe['optimizer']['lr'], recipe['optimizer']['weight_decay'])
    assert cfg.optim_wrapper.paramwise_cfg == recipe['layer_decay']
    assert cfg.optim_wrapper.clip_grad == recipe['grad_clip'] and recipe['amp'] is None
    assert cfg.train_dataloader.batch_size == recipe['batch']['samples_per_gpu']
    assert cfg.auto_scale_lr.base_batch_size == recipe['batch']['total_follow']
    assert cfg.train_cfg.val_interval == recipe['test']['evaluation']['interval']
    assert Path(cfg.model.img_backbone.init_cfg.checkpoint).name == Path(
        recipe['pretrained']['load_from']).name
    for part, ours in (('backbone', 'img_backbone'), ('neck', 'img_neck')):
        for key, value in recipe['architecture'][part].items():
            if key not in ('type', 'norm_cfg'):
                assert recipes.plain(cfg.model[ours][key]) == value, key
    assert recipe['architecture']['backbone']['norm_cfg'] == {'type': 'SyncBN'}


@published
def test_published_heads_say_the_same(name: str) -> None:
    model, recipe = load(name).model, record(name)['head']
    head, theirs = model.pts_bbox_head, recipe['pts_bbox_head']
    assert list(model.frames) == recipe['frames'] == theirs['transformer']['frames']
    assert head.num_groups == theirs.get('group_detr', 1)
    for key in ('bev_h', 'bev_w', 'num_query', 'num_classes'):
        assert head[key] == theirs[key]
    coder, transformer = theirs['bbox_coder'], theirs['transformer']
    assert list(head.post_center_range) == coder['post_center_range']
    assert (list(head.pc_range), head.max_num) == (coder['pc_range'], coder['max_num'])
    assert head.loss_cls_weight == theirs['loss_cls']['loss_weight']
    assert head.loss_bbox_weight == theirs['loss_bbox']['loss_weight']
    encoder, decoder = transformer['encoder'], transformer['decoder']
    ours = head.transformer
    assert ours.get('fusion', {}).get('inter_channels') == transformer.get('inter_channels')
    assert (ours.encoder.num_layers, ours.encoder.num_heights) == (
        encoder['num_layers'], encoder['num_points_in_pillar'])
    deformable = encoder['transformerlayers']['attn_cfgs'][1]['deformable_attention']
    assert (ours.encoder.num_points, ours.num_feature_levels) == (
        deformable['num_points'], deformable['num_levels'])
    for part, source in (('encoder', encoder), ('decoder', decoder)):
        layer = source['transformerlayers']
        assert (ours[part].num_layers, ours[part].feedforward_channels, ours[part].dropout) == (
            source['num_layers'], layer['feedforward_channels'], layer['ffn_dropout'])


@published
def test_published_perspective_heads_say_the_same(name: str) -> None:
    import mmdet3d_custom.models.perspective_head as module
    head = module.MODELS.build(load(name).model.fcos3d_bbox_head)
    theirs = record(name)['head']['fcos3d_bbox_head']
    loss, layers, flat = (theirs[key] for key in ('fcos3d_loss_cfg', 'fcos3d_cfg', 'fcos2d_cfg'))
    assert list(head.strides) == theirs['strides'] and head.num_classes == theirs['num_classes']
    assert head.canonical_sizes.tolist() == [pytest.approx(s) for s in loss['canon_box_sizes']]
    assert list(head.depth_range) == [loss['min_depth'], loss['max_depth']]
    assert head.focal_factor == loss['scale_depth_by_focal_lengths_factor']
    assert (head.beta, head.temperature) == (loss['smooth_l1_loss_beta'],
                                             loss['conf_3d_temperature'])
    assert (head.loss_weights['box3d'], head.loss_weights['conf3d']) == (
        loss['box3d_loss_weight'], loss['conf3d_loss_weight'])
    assert (head.loss_weights['attr'], head.loss_weights['speed']) == tuple(
        theirs['nusc_loss_weight'][f'{key}_loss_weight'] for key in ('attr', 'speed'))
    assign = theirs['target_assign_cfg']
    assert head.center_radius == assign['pos_radius']
    assert recipes.plain(head.ranges) == assign['sizes_of_interest']
    three, two = head.fcos3d_head, head.fcos2d_head
    for key in ('mean', 'std'):
        assert getattr(three, f'{key}_depth_per_level').tolist() == pytest.approx(
            layers[f'{key}_depth_per_level'])
    assert len(three.box3d_tower) == layers['num_convs']
    assert (len(two.cls_tower), len(two.box2d_tower)) == (flat['num_cls_convs'],
                                                          flat['num_box_convs'])


@published
def test_published_data_say_the_same(name: str) -> None:
    cfg, recipe = load(name), record(name)
    theirs, ours = recipe['augmentation']['summary'], steps(cfg)
    views, = theirs['CropResizeFlipImage']
    views = views['data_aug_conf']
    assert ours['AugmentViews']['heights'] == views['reisze']
    assert ours['AugmentViews']['crop'] == views['crop']
    assert ours['AugmentViews']['flip'] == (0.5 if views['rand_flip'] else 0.0)
    if 'GlobalRotScaleTransImage' in theirs:
        bev, = theirs['GlobalRotScaleTransImage']
        assert ours['AugmentBEV'] == dict(
            rotation=bev['rot_range'], scale=bev['scale_ratio_range'], flip_x=bev['flip_dx_ratio'],
            flip_y=bev['flip_dy_ratio'])
    else:
        assert 'AugmentBEV' not in ours
    assert ours['ObjectNameFilter'] == theirs['ObjectNameFilter'][0]
    assert ours['ObjectRangeFilter'] == theirs['ObjectRangeFilter'][0]
    normalise, = [step for step in recipe['augmentation']['pipeline']
                  if step['type'] == 'NormalizeMultiviewImage']
    preprocessor = cfg.model.data_preprocessor
    assert (list(preprocessor.mean), list(preprocessor.std), preprocessor.bgr_to_rgb) == (
        normalise['mean'], normalise['std'], normalise['to_rgb'])


@published
def test_published_figures_stand_in_the_docstring(name: str) -> None:
    text = ast.get_docstring(ast.parse(path_of(name).read_text()))
    for metric, value in record(name)['published']['metrics_in_config'].items():
        shown = f'{value * 100:.2f}' if metric in ('NDS', 'mAP') else f'{value:.4f}'
        assert f'{metric} {shown}' in text, metric


@pytest.mark.parametrize('name', ['t1-base_r50_16xb1-24e',
                                  'bidirectional_internimage-xl_32xb1-24e'])
def test_parameters_train_as_published(name: str) -> None:
    row, cfg = ROWS[name], load(name)
    model = recipes.build(path_of(name))
    trained = {key: value for key, value in recipes.parameter_groups(cfg, model).items()
               if model.get_parameter(key).requires_grad}
    rates = {key: lr for key, (lr, _) in trained.items()}
    assert rates['fcos3d_bbox_head.speed.weight'] == rates['img_neck.fpn_convs.0.conv.weight'] == (
        pytest.approx(row.lr))
    if row.decay is None:
        assert {lr for key, lr in rates.items() if key.startswith('img_backbone.')} == {2e-4}
        assert {decay for _, decay in trained.values()} == {0.01}
    else:
        below_the_heads = sum(model.img_backbone.cfg.depths) + 1
        stem = rates['img_backbone.patch_embed.conv1.weight']
        assert stem == pytest.approx(row.lr * row.decay**below_the_heads)
        assert {decay for key, (_, decay) in trained.items() if key.endswith('.bias')} == {0.0}
