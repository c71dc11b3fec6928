"""Plain ViT and ViTDet on COCO against arXiv:2111.11429 and detectron2's ViTDet recipes."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.configs import recipes
from tests.helpers import ROOT

COCO = ROOT / 'configs/coco'
PLAIN = sorted(COCO.glob('mask-rcnn_vit-*.py'))
VITDET = sorted(COCO.glob('*mask-rcnn_vitdet-*.py'))

# arXiv:2111.11429, text: learning rate and weight decay by initialisation.
RATES = {'random': (1.6e-4, 0.2), 'supervised': (8e-5, 0.1), 'moco-v3': (1.6e-4, 0.1),
         'beit': (8e-5, 0.1), 'mae': (8e-5, 0.1)}
DROP_PATHS = {'b': 0.1, 'l': 0.3}
# What an ablation changes in the backbone.
ABLATIONS: dict[str, dict[str, Any]] = {
    'windows': dict(global_blocks=[]), 'global': dict(global_blocks=list(range(24))),
    'global-cp': dict(global_blocks=list(range(24)), with_cp=True),
    'no-rel': dict(rel_pos='none'), 'zero-rel': {}}

# Every deliberate difference from a detectron2 recipe: what -> (published, ours, reason).
DEVIATIONS: dict[str, tuple[Any, Any, str]] = {
    'cascade stages': (
        'gradient of pooled features times 1/3', [1 / 3] * 3,
        'the pyramid gets the same gradient, and AdamW ignores the scale of a head\'s own loss'),
    'cascade mask head': (
        'one, on the proposals', 'one per stage, averaged in tests',
        "mmdet's cascade; at a third of the loss each, the pyramid gets the same gradient"),
    'cascade sampling': (
        '512 boxes of the first stage in all', '512 anew in each stage', "mmdet's cascade"),
    'low-quality anchors': (
        'the best anchor of an object, however poor', 'at an overlap of 0.3 or more',
        "mmdet's assigner, as in all detectors here"),
    'random initialisation': (
        'normal cut at two deviations', "BEiT's, cut at one and scaled by depth",
        'one for both papers; all recipes start from MAE weights, which replace it'),
    'gradients between GPUs': ('compressed to fp16', 'fp32', 'a matter of network speed'),
}


def parts(path: Path) -> tuple[str, str, str, int]:
    """Size, initialisation, ablation (or nothing) and epochs in the name of a plain ViT."""
    name = path.stem.split('_')[1].removeprefix('vit-')
    size, rest = name.split('-', 1)
    start = next(start for start in RATES if rest.startswith(start))
    epochs = path.stem.split('_')[3].split('-')[1]
    return size, start, rest[len(start) + 1:], int(epochs[:-1])


def detectron2(path: Path) -> dict[str, Any]:
    """The published recipe of one of our ViTDet configs."""
    name = path.stem.replace('-', '_').split('_64xb1')[0]
    epochs = '75' if 'vitdet-h' in path.stem else '100'
    return recipes.published(f'detectron2/projects/ViTDet/configs/COCO/{name}_{epochs}ep.py')


plain = pytest.mark.parametrize('path', PLAIN, ids=lambda path: path.stem)
vitdet = pytest.mark.parametrize('path', VITDET, ids=lambda path: path.stem)


def test_every_initialisation_length_and_ablation_has_a_config() -> None:
    found = {parts(path) for path in PLAIN}
    for size in 'bl':
        assert {(size, start, '', 100) for start in RATES} <= found
        assert {(size, 'random', '', epochs) for epochs in (200, 400)} <= found
        assert {(size, 'mae', 'no-rel', 50), (size, 'beit', 'zero-rel', 100)} <= found
    assert {('l', 'mae', name, 50) for name in ('', 'windows', 'global', 'global-cp')} <= found
    assert len(VITDET) == 6


@plain
def test_plain_vit_is_trained_as_published(path: Path) -> None:
    size, start, ablation, epochs = parts(path)
    cfg = recipes.load(path)
    backbone = dict(cfg.model.backbone)
    assert backbone.pop('type') == 'PlainViT'
    assert backbone.pop('arch') == {'b': 'base', 'l': 'large'}[size]
    assert backbone.pop('drop_path_rate') == DROP_PATHS[size]
    init = backbone.pop('init_cfg', None)
    if start == 'random':
        assert init is None
    else:
        init = dict(init)
        assert init.pop('skip', None) == (['rel_pos'] if ablation == 'zero-rel' else None)
        assert init == dict(type='Pretrained', checkpoint=f'data/weights/vit-{size}_{start}.pth')
    # Values that the checkpoint replaces; that there are factors at all is BEiT's.
    assert (backbone.pop('layer_scale', None) is not None) == (start == 'beit')
    assert backbone == ABLATIONS.get(ablation, {})
    wrapper = cfg.optim_wrapper
    assert (wrapper.optimizer.lr, wrapper.optimizer.weight_decay) == RATES[start]
    assert wrapper.optimizer.type == 'AdamW' and tuple(wrapper.optimizer.betas) == (0.9, 0.999)
    assert wrapper.type == 'AmpOptimWrapper' and 'clip_grad' not in wrapper
    assert not cfg.get('custom_hooks')
    warmup, cosine = cfg.param_scheduler
    assert (warmup.type, warmup.begin, warmup.end) == ('LinearLR', 0, 0.25)
    assert (cosine.type, cosine.begin, cosine.end, cosine.eta_min) == (
        'CosineAnnealingLR', 0, epochs, 0)
    assert cfg.train_cfg.max_epochs == epochs and cfg.auto_scale_lr.base_batch_size == 64


@pytest.mark.parametrize('path', [p for p in PLAIN if parts(p)[::3] == ('b', 100)],
                         ids=lambda path: path.stem)
def test_plain_vit_has_no_layer_decay_and_spares_norms_and_positions(path: Path) -> None:
    lr, decay = RATES[parts(path)[1]]
    model = recipes.build(path)
    # The paper names no exceptions; a public reproduction (MIMDet) has these.
    expected = {name: (lr, 0.0 if value.ndim == 1 or name.endswith(
        ('pos_embed', 'relative_position_bias_table')) else decay)
        for name, value in model.named_parameters()}
    assert not recipes.different(recipes.parameter_groups(recipes.load(path), model), expected)


def vitdet_groups(recipe: dict[str, Any], model: nn.Module) -> dict[str, tuple[float, float]]:
    """Rate and decay of every parameter by the published rules.

    Neither norms outside the backbone nor biases are exceptions: detectron2's channel norm is none
    of the classes that it counts as norms.
    """
    rule = recipe['layer_decay']
    rate, layers = (rule['lr_factor_func'][key] for key in ('lr_decay_rate', 'num_layers'))
    lr, decay = (recipe['optimizer'][key] for key in ('lr', 'weight_decay'))
    groups = {}
    for name, _ in model.named_parameters():
        layer = layers + 1
        if name in ('backbone.pos_embed', 'backbone.patch_embed.proj.weight',
                    'backbone.patch_embed.proj.bias'):
            layer = 0
        elif name.startswith('backbone.blocks.'):
            layer = int(name.split('.')[2]) + 1
        own = decay
        if '.norm1.' in name or '.norm2.' in name:
            own = decay if rule['weight_decay_norm'] is None else rule['weight_decay_norm']
        elif name == 'backbone.pos_embed':
            own = (rule['overrides'] or {}).get('pos_embed', {}).get('weight_decay', decay)
        groups[name] = lr * rate**(layers + 1 - layer), own
    return groups


@vitdet
def test_vitdet_parameters_train_as_published(path: Path) -> None:
    model = recipes.build(path)
    assert not recipes.different(recipes.parameter_groups(recipes.load(path), model),
                                 vitdet_groups(detectron2(path), model))


@vitdet
def test_vitdet_network_is_the_published_one(path: Path) -> None:
    recipe, cfg, model = detectron2(path), recipes.load(path), recipes.build(path)
    stated, built = recipe['architecture']['backbone'], model.backbone
    arch = built.cfg
    assert (arch.channels, arch.depth, arch.heads, arch.mlp_ratio, arch.patch_size) == tuple(
        stated[key] for key in ('embed_dim', 'depth', 'num_heads', 'mlp_ratio', 'patch_size'))
    assert arch.image_size == stated['img_size'] and arch.window_size == stated['window_size']
    assert [i for i, block in enumerate(built.blocks) if block.window] == (
        stated['window_block_indexes'])
    assert list(arch.conv_blocks) == stated['residual_block_indexes']
    assert (arch.rel_pos == 'decomposed') == stated['use_rel_pos']
    assert cfg.model.backbone.drop_path_rate == stated['drop_path_rate']
    neck = recipe['architecture']['neck']
    assert model.neck.in_channels == arch.channels
    assert neck['_target_'] == type(model.neck).__name__ and model.neck.num_outs == 5
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.pad_size == (neck['square_pad'],) * 2
    assert list(preprocessor.mean) == recipe['architecture']['pixel_mean']
    assert list(preprocessor.std) == recipe['architecture']['pixel_std']


@vitdet
def test_vitdet_heads_are_the_published_ones(path: Path) -> None:
    recipe, cfg, model = detectron2(path), recipes.load(path), recipes.build(path)
    rpn, roi = recipe['head']['proposal_generator'], recipe['head']['roi_heads']
    assert cfg.model.rpn_head.num_convs == len(rpn['head']['conv_dims'])
    train, test = cfg.model.train_cfg, cfg.model.test_cfg
    assert [train.rpn_proposal.nms_pre, test.rpn.nms_pre] == rpn['pre_nms_topk']
    assert [train.rpn_proposal.max_per_img, test.rpn.max_per_img] == rpn['post_nms_topk']
    assert test.rpn.nms.iou_threshold == rpn['nms_thresh']
    assert train.rpn.allowed_border == -1 and train.rpn.sampler.num == rpn['batch_size_per_image']
    cascade = 'cascade' in path.stem
    heads = list(model.roi_head.bbox_head) if cascade else [model.roi_head.bbox_head]
    predictors = roi['box_predictors'] if cascade else [roi['box_predictor']]
    layers = roi['box_heads'] if cascade else [roi['box_head']]
    stages = list(train.rcnn) if cascade else [train.rcnn]
    matchers = roi['proposal_matchers'] if cascade else [roi['proposal_matcher']]
    for head, predictor, layer, stage, matcher in zip(heads, predictors, layers, stages, matchers,
                                                      strict=True):
        assert head.reg_class_agnostic == predictor.get('cls_agnostic_bbox_reg', False)
        assert [1 / std for std in head.bbox_coder.stds] == pytest.approx(
            predictor['box2box_transform']['weights'])
        assert [conv.conv.out_channels for conv in head.shared_convs] == layer['conv_dims']
        assert [fc.out_features for fc in head.shared_fcs] == layer['fc_dims']
        assert {type(conv.norm).__name__ for conv in head.shared_convs} == {'LayerNorm2d'}
        assert type(head.loss_bbox).__name__ == 'L1Loss'
        assert [stage.assigner.pos_iou_thr] == matcher['thresholds']
        assert stage.sampler.num == roi['batch_size_per_image']
    assert type(model.rpn_head.loss_bbox).__name__ == 'L1Loss'
    masks = list(model.roi_head.mask_head) if cascade else [model.roi_head.mask_head]
    for head in masks:  # the last of the published convolutions is the transposed one
        assert len(head.convs) + 1 == len(roi['mask_head']['conv_dims'])
        assert type(head.convs[0].norm).__name__ == 'LayerNorm2d' and head.convs[0].norm.eps == 1e-6
    assert len(masks) == (3 if cascade else 1)
    if cascade:
        assert cfg.model.roi_head.stage_loss_weights == DEVIATIONS['cascade stages'][1]


@vitdet
def test_vitdet_schedule_and_data_are_the_published_ones(path: Path) -> None:
    recipe, cfg = detectron2(path), recipes.load(path)
    schedule = recipe['schedule']
    multiplier = schedule['lr_multiplier']
    warmup, steps = cfg.param_scheduler
    assert cfg.train_cfg.max_iters == steps.end == schedule['max_iter']
    assert cfg.train_cfg.val_interval == schedule['eval_period']
    assert list(steps.milestones) == multiplier['scheduler']['milestones'] and steps.gamma == 0.1
    assert warmup.start_factor == multiplier['warmup_factor']
    assert warmup.end == pytest.approx(multiplier['warmup_length'] * schedule['max_iter'], abs=1)
    assert not warmup.by_epoch and not steps.by_epoch
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay, list(optimizer.betas)) == tuple(
        recipe['optimizer'][key] for key in ('lr', 'weight_decay', 'betas'))
    assert (cfg.optim_wrapper.type == 'AmpOptimWrapper') == recipe['amp']['enabled']
    assert 'clip_grad' not in cfg.optim_wrapper and recipe['grad_clip'] is None
    assert cfg.auto_scale_lr.base_batch_size == recipe['batch']['total']
    assert cfg.auto_scale_lr.base_batch_size == (
        cfg.train_dataloader.batch_size * recipe['batch']['gpus'])
    flip, scale, crop = recipe['augmentation']['augmentations']
    assert flip['horizontal'] and not crop['pad']
    assert recipes.pipeline_summary(cfg.train_dataloader.dataset.pipeline) == {
        'flip': [0.5], 'crop': [('absolute_range', crop['crop_size'], True)],
        'resize': [([[scale['target_width'], scale['target_height']]], True)]}
    jitter = next(step for step in cfg.train_dataloader.dataset.pipeline
                  if step.type == 'RandomResize')
    assert list(jitter.ratio_range) == [scale['min_scale'], scale['max_scale']]
    shorter, = recipe['test']['mapper']['augmentations']
    resize, = (step for step in cfg.test_dataloader.dataset.pipeline if step.type == 'Resize')
    assert resize.scale == (shorter['short_edge_length'], shorter['max_size'])


@vitdet
def test_vitdet_size(path: Path) -> None:
    """Weights counted by hand from arXiv:2203.16527 and the published head."""
    model = recipes.build(path)
    c, depth, heads = (getattr(model.backbone.cfg, key) for key in ('channels', 'depth', 'heads'))
    relative = 2 * c // heads * (4 * 127 + (depth - 4) * 27)
    backbone = depth * (12 * c**2 + 13 * c) + relative + (3 * 16**2 + 1 + 14**2) * c
    conv, pooled = 9 * 256**2, 256 * 7 * 7
    up = [2 * c**2 + c // 2, 2 * c**2 + 3 * c // 2 + c**2 // 2 + c // 4]
    neck = sum(up) + 11 * c // 4 * 256 + 4 * (conv + 4 * 256)
    rpn = 2 * (conv + 256) + 3 * 257 + 12 * 257
    boxes = 4 if 'cascade' in path.stem else 4 * 80
    box = 4 * (conv + 512) + pooled * 1024 + 1024 + (81 + boxes) * 1025
    mask = 4 * (conv + 512) + 4 * 256**2 + 256 + 80 * 257
    stages = 3 if 'cascade' in path.stem else 1
    assert sum(p.numel() for p in model.parameters()) == (
        backbone + neck + rpn + stages * (box + mask))
