"""ConvNeXt and isotropic ConvNeXt: published files <-> mmpretrain's names in a classifier."""
from __future__ import annotations

from mmdcn.checkpoints.converters.base import (
    CLASSIFIER_HEAD,
    Conversion,
    Converter,
    Options,
    Renames,
    State,
    keep_class_rows,
    refuse_unknown,
    rename_all,
)

_BLOCK = (
    ('stages.{i}.{j}.dwconv.{rest}', 'stages.{i}.{j}.depthwise_conv.{rest}'),
    ('stages.{i}.{j}.pwconv{n}.{rest}', 'stages.{i}.{j}.pointwise_conv{n}.{rest}'),
)
# What changes in the backbone of a detector or segmentor.
BACKBONE_RULES = tuple((f'backbone.{old}', f'backbone.{new}') for old, new in _BLOCK)

_HEAD = ('head.{rest}', 'head.fc.{rest}')
_CLASSIFIER = Renames([
    *((old, f'backbone.{new}') for old, new in _BLOCK),
    ('stages.{rest}', 'backbone.stages.{rest}'),
    ('downsample_layers.{rest}', 'backbone.downsample_layers.{rest}'),
    ('norm.{rest}', 'backbone.norm3.{rest}'),
    _HEAD,
])
_DENSE = Renames([*((old, f'backbone.{new}') for old, new in _BLOCK),
                  ('{rest}', 'backbone.{rest}')])
_ISOTROPIC = Renames([
    *((old.replace('stages.{i}', 'blocks'), f'backbone.{new}'.replace('{i}', '0'))
      for old, new in _BLOCK),
    ('blocks.{rest}', 'backbone.stages.0.{rest}'),
    ('stem.{rest}', 'backbone.downsample_layers.0.0.{rest}'),
    ('norm.{rest}', 'backbone.norm0.{rest}'),
    _HEAD,
])


def _rules(keys: State) -> Renames:
    """The rules of the model the published keys belong to."""
    if any(key.startswith('stem.') for key in keys):
        return _ISOTROPIC
    return _DENSE if any(key.startswith('norm0.') for key in keys) else _CLASSIFIER


def _rules_back(keys: State) -> Renames:
    """The rules of the model our keys belong to; only an isotropic stem has no norm."""
    if not any(key.startswith('backbone.downsample_layers.0.1.') for key in keys):
        return _ISOTROPIC
    return _DENSE if any(key.startswith('backbone.norm0.') for key in keys) else _CLASSIFIER


def _to_mmpretrain(state: State, options: Options) -> Conversion:
    rules = _rules(state)
    refuse_unknown('convnext', [key for key in state if rules(key) is None],
                   'stem.*, downsample_layers.*, stages.*, blocks.*, norm*, head.*')
    return keep_class_rows(rename_all(state, rules), CLASSIFIER_HEAD, options)


def _from_mmpretrain(state: State, options: Options) -> Conversion:
    rules = _rules_back(state)
    refuse_unknown('convnext, inverse', [key for key in state if rules.back(key) is None],
                   'backbone.downsample_layers.*, backbone.stages.*, backbone.norm*, head.fc.*')
    return rename_all(state, rules.back)


FAMILIES = (
    Converter('convnext', 'ConvNeXt or isotropic ConvNeXt, published -> mmpretrain classifier',
              _to_mmpretrain, invert=_from_mmpretrain,
              marks=(r'^(stages\.0|blocks)\.0\.dwconv\.',
                     r'^(stem|downsample_layers\.0\.0)\.weight$'),
              uses=('class_rows',)),
)
