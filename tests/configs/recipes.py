"""What a published mmdet 2.x or mmseg 0.x recipe says, in the terms of a config of ours."""
from __future__ import annotations

import json
from functools import cache
from math import isclose
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from torch import nn

from mmdcn.analysis.complexity import build_on_meta
from mmdcn.apis.config import load_config
from tests.helpers import reference_path

ABSENT = '(absent)'
# The same in both generations of mmdet under another name, or the default of today's class.
RENAMED = {'dn_group.num_dn_queries': 'dn_cfg.group_cfg.num_dn_queries',
           'num_classes': 'bbox_head.num_classes'}
# Of Mask2Former, by the rule of InternImage's segmentation.
MASK_HEAD_AT_ZERO = tuple(f'decode_head.{part}' for part in (
    'mask_embed', 'cls_embed', 'query_embed', 'query_feat'))


@cache
def _records() -> list[dict[str, Any]]:
    return json.loads(reference_path('recipes', 'recipes.json').read_text())['records']


def all_published(task: str) -> list[dict[str, Any]]:
    """Every recipe of a task."""
    return [record for record in _records() if record['task'] == task]


def published(name: str) -> dict[str, Any]:
    """The recipe of a published config, named by its path."""
    return next(record for record in _records() if record['id'] == name)


@cache
def load(path: Path) -> Config:
    """A config, read once; not to be changed."""
    return load_config(str(path))


@cache
def build(path: Path) -> nn.Module:
    """The model of a config, on the meta device."""
    cfg = load(path).copy()
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return build_on_meta(lambda: MODELS.build(cfg.model))


def parameter_groups(cfg: Config, model: nn.Module) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter by name, as the optimizer has them."""
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')  # mixed precision needs a device
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(dict(
        type=wrapper.pop('constructor'), optim_wrapper_cfg=wrapper,
        paramwise_cfg=wrapper.pop('paramwise_cfg', None)))
    names = {param: name for name, param in model.named_parameters()}
    # The wrapper adds one group of its own, which holds no parameter of the model.
    return {names[param]: (group['lr'], group['weight_decay'])
            for group in constructor(model).param_groups for param in group['params']
            if param in names}


def internimage_layer(name: str, depths: list[int]) -> int:
    """The layer of a parameter by the published rule for (Flash)InternImage."""
    last = sum(depths) + 1
    if 'level_embed' in name or name.startswith(('backbone.patch_embed', *MASK_HEAD_AT_ZERO)):
        return 0
    if not name.startswith('backbone.levels.'):
        return last
    _, _, level, part, *rest = name.split('.')
    before = sum(depths[:int(level)])
    if part in ('blocks', 'post_norms'):
        return 1 + before + int(rest[0])
    return 1 + sum(depths[:min(int(level), 2) + 1])


def convnext_layer(name: str, layers: int, decay_type: str) -> int:
    """The layer of a parameter by ConvNeXt's rule of this type with 6 or 12 layers."""
    _, part, *rest = [*name.split('.'), '', '']
    if not name.startswith('backbone.') or part not in ('downsample_layers', 'stages'):
        return layers + 1
    number = int(rest[0])
    if decay_type == 'stage_wise':
        return 0 if part == 'downsample_layers' else number + 1
    if part == 'downsample_layers':
        return (0, 2, 3, layers)[number]
    return (1, 2, 3 + int(rest[1]) // 3 if number == 2 else 0, layers)[number]


def expected_groups(recipe: dict[str, Any], model: nn.Module) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter by the published rules."""
    lr, decay = recipe['optimizer']['lr'], recipe['optimizer']['weight_decay']
    options = recipe['layer_decay']
    if 'custom_keys' in options:  # the framework's default: everything decays
        factor = options['custom_keys']['backbone']['lr_mult']
        return {name: (lr * factor if 'backbone' in name else lr, decay)
                for name, _ in model.named_parameters()}
    settings = {}
    for name, param in model.named_parameters():
        layers = options['num_layers']
        convnext = 'decay_rate' in options
        layer = (convnext_layer(name, layers, options['decay_type']) if convnext else
                 internimage_layer(name, options['depths']))
        rate = options['decay_rate' if convnext else 'layer_decay_rate']
        scale = rate**(layers + 1 - layer)
        if not convnext and is_offset(name, recipe['id'].startswith('DCNv4')):
            scale *= options.get('offset_lr_scale', 1.0)
        plain = param.ndim == 1 or name.endswith('.bias') or not convnext and any(
            part in name for part in ('norm', 'relative_position', 'sampling_offsets'))
        settings[name] = (lr * scale, 0.0 if plain else decay)
    return settings


def is_offset(name: str, dcnv4: bool) -> bool:
    """Whether a published training scales the rate of a parameter by ``offset_lr_scale``."""
    if any(part in name for part in ('sampling_offsets', 'reference_points')):
        return True
    return dcnv4 and ('offset_mask' in name and 'offset_mask_dw' not in name
                      or name.endswith('offset'))


def pipeline_summary(pipeline: list[Any]) -> dict[str, list[Any]]:
    """What a training pipeline of ours does to pictures, as the recipes put it."""
    found: dict[str, list[Any]] = {'flip': [], 'resize': [], 'crop': []}
    for step in pipeline:
        kind = step['type']
        if kind == 'RandomChoice':
            for branch in step['transforms']:
                for name, values in pipeline_summary(branch).items():
                    found[name] += values
        elif kind == 'RandomFlip':
            found['flip'].append(step['prob'])
        elif kind in ('Resize', 'RandomResize', 'RandomChoiceResize'):
            assert step['keep_ratio']
            scales = step.get('scales', step.get('scale'))
            scales = [scales] if isinstance(scales[0], int) else scales
            found['resize'].append(([list(scale) for scale in scales], kind == 'RandomResize'))
        elif kind == 'RandomCrop':
            found['crop'].append((step['crop_type'], list(step['crop_size']),
                                  step['allow_negative_crop']))
    return found


def published_summary(recipe: dict[str, Any]) -> dict[str, list[Any]]:
    """The same of a recipe."""
    steps = recipe['augmentation']['summary']
    resize = []
    for step in steps['Resize']:
        scales = step['img_scale']
        scales = [scales] if isinstance(scales[0], int) else scales
        resize.append((scales, step.get('multiscale_mode') == 'range'))
    return {
        'flip': [step['flip_ratio'] for step in steps['RandomFlip']], 'resize': resize,
        'crop': [(step['crop_type'], step['crop_size'], step['allow_negative_crop'])
                 for step in steps.get('RandomCrop', [])]}


def look_up(node: Any, path: str) -> list[Any]:
    """Values at a dotted path, ``*`` for every entry of a list; ``ABSENT`` where there is none."""
    nodes = [node]
    for key in path.split('.'):
        found: list[Any] = []
        for item in nodes:
            if key == '*':
                found += item
            else:
                found.append(item.get(key, ABSENT) if isinstance(item, dict) else ABSENT)
        nodes = found
    return nodes


def plain(value: Any) -> Any:
    """Tuples as lists, configs as dictionaries, to compare with JSON."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def different(got: dict[str, tuple[float, float]],
              expected: dict[str, tuple[float, float]]) -> list[str]:
    """The names whose settings differ by more than rounding, or that only one side has."""
    def same(name: str) -> bool:
        return name in got and name in expected and all(
            isclose(*pair, rel_tol=1e-9) for pair in zip(got[name], expected[name], strict=True))
    return [name for name in got.keys() | expected.keys() if not same(name)]
