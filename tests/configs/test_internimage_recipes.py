"""The ImageNet configs of InternImage and FlashInternImage against the published recipes."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.registry import MODELS

from mmdcn.analysis.complexity import build_on_meta
from mmdcn.apis.config import load_config
from tests.helpers import ROOT, reference_path

CONFIGS = sorted((ROOT / 'configs/imagenet').glob('*internimage*.py'))


def published(path: Path) -> dict[str, Any]:
    """The recipe of the table row that a config is named after."""
    family, size = path.stem.split('_')[0].rsplit('-', 1)
    model = {'internimage': 'InternImage', 'flash-internimage': 'FlashInternImage'}[family]
    rows = json.loads(reference_path('zoo', 'model_zoo.json').read_text())['rows']
    return next(row['recipe'] for row in rows if row['task'] == 'classification'
                and row['backbone'] == f'{model}-{size.upper()}'
                and row['dataset'] == 'ImageNet-1K')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_network_is_the_published_one(path: Path) -> None:
    recipe, cfg = published(path), load_config(str(path)).model.backbone
    cls = MODELS.get(cfg.pop('type'))
    arch = build_on_meta(lambda: cls(**cfg)).cfg
    for name, value in recipe['model'].items():
        if name == 'core_op':
            assert (value == 'DCNv4') == (cls.__name__ == 'FlashInternImage')
        elif name not in ('use_clip_projector',):
            got = getattr(arch, name)
            assert (list(got) if isinstance(got, tuple) else got) == (
                [] if name.endswith('ids') and value is None else value), name
    assert cfg.drop_path_rate == recipe['drop_path_rate']


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_training_is_the_published_one(path: Path) -> None:
    recipe, cfg = published(path), load_config(str(path))
    batch = cfg.auto_scale_lr.base_batch_size
    assert batch == (recipe['total_batch_in_readme'] or batch)
    wrapper, options = cfg.optim_wrapper, cfg.optim_wrapper.paramwise_cfg
    assert wrapper.optimizer.lr == pytest.approx(recipe['base_lr_per_512'] * batch / 512)
    assert wrapper.optimizer.weight_decay == recipe['weight_decay']
    assert wrapper.clip_grad.max_norm == recipe['clip_grad_norm']
    assert options.layer_decay_rate == (recipe['layer_decay'] or 1.0)
    assert options.get('offset_lr_scale', 1.0) == (
        recipe['dcn_lr_mul'] if recipe['dcn_lr_mul_active'] else 1.0)
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.end) == (recipe['warmup_epochs'], recipe['epochs'])
    assert cosine.get('eta_min_ratio', 0) * recipe['base_lr_per_512'] == pytest.approx(
        recipe['min_lr_per_512'])
    hook, = cfg.custom_hooks
    assert 1 - hook.momentum == recipe['ema']
    assert cfg.model.head.loss.label_smooth_val == recipe['label_smoothing']
    alphas = [item.alpha for item in cfg.model.train_cfg.get('augments', ())] or [0, 0]
    assert alphas == [recipe['mixup'], recipe['cutmix']]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_images_are_prepared_as_published(path: Path) -> None:
    recipe, cfg = published(path), load_config(str(path))
    size = recipe['image_size']
    train = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert train['RandomResizedCrop'].scale == size
    assert train['RandomResizedCrop'].interpolation == recipe['interpolation']
    assert train['RandAugment'].magnitude_level == 9
    erase = train['RandomErasing'].erase_prob if 'RandomErasing' in train else 0
    assert erase == recipe['random_erase']
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        test = {step.type: step for step in loader.dataset.pipeline}
        assert (test['ResizeEdge'].scale, test['CenterCrop'].crop_size) == (size, size)


# From the papers' appendices: image size, epochs, epochs of warmup, stochastic depth.
PAPERS = {
    'internimage-t': (224, 300, 20, 0.1), 'internimage-s': (224, 300, 20, 0.4),
    'internimage-b': (224, 300, 20, 0.5), 'internimage-l': (384, 20, 2, 0.1),
    'internimage-xl': (384, 20, 2, 0.2), 'internimage-h': (640, 20, 2, 0.2),
    'internimage-g': (512, 20, 2, 0.4), 'flash-internimage-t': (224, 300, 20, 0.1),
    'flash-internimage-s': (224, 300, 20, 0.4), 'flash-internimage-b': (224, 300, 20, 0.5),
    'flash-internimage-l': (384, 20, 2, 0.1)}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_recipe_of_the_papers(path: Path) -> None:
    """What needs no reference data: the main figures, and that the parts agree on them."""
    size, epochs, warmup_epochs, drop_path_rate = PAPERS[path.stem.split('_')[0]]
    cfg = load_config(str(path))
    assert cfg.model.backbone.drop_path_rate == drop_path_rate
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.end, cfg.train_cfg.max_epochs) == (
        warmup_epochs, warmup_epochs, epochs, epochs)
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['RandomResizedCrop'].scale == size
    steps = {step.type: step for step in cfg.test_dataloader.dataset.pipeline}
    assert steps['CenterCrop'].crop_size == size
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    if epochs == 300:
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(4e-3)
        assert cfg.auto_scale_lr.base_batch_size == 4096
