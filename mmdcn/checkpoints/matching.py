"""Compares the tensors of a checkpoint with those of a model, and copies what fits."""
from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

from mmdcn.checkpoints.class_layers import find_class_layers
from mmdcn.checkpoints.loading import CheckpointError, plain_name
from mmdcn.checkpoints.policy import current_policy
from mmdcn.traits import find_trait

_SHOWN = 8
# What published files put before a backbone's or a model's own names.
_PREFIXES = ('', 'backbone.', 'model.')
# What files older than PyTorch 0.4.1 lack, of any model.
_MAY_LACK = (r'\.num_batches_tracked$',)
Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


@dataclass
class MatchReport:
    """How the tensors of a checkpoint meet those of a model; names are the model's.

    Args:
        loaded: Filled from the checkpoint, resized ones included.
        expected_missing: Not in the checkpoint, as in every file of its family; they keep the
            values the model began with.
        missing: Not in the checkpoint.
        unexpected: Only in the checkpoint.
        resized: Interpolated by the model: shape in the checkpoint, shape in the model.
        mismatched: Of another shape, not loaded.
        reinitialised: Of another number of classes, not loaded: they keep the values the model
            began with.
    """

    loaded: list[str] = field(default_factory=list)
    expected_missing: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: Shapes = field(default_factory=dict)
    mismatched: Shapes = field(default_factory=dict)
    reinitialised: Shapes = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Share of the model's tensors that are filled, 0 to 1, apart from those to be new."""
        wanted = len(self.loaded) + len(self.missing) + len(self.mismatched)
        return len(self.loaded) / wanted if wanted else 1.0

    def __str__(self) -> str:
        shapes = [f'{key} (checkpoint {got}, model {want})'
                  for key, (got, want) in self.resized.items()]
        shapes += [f'{key} (checkpoint {got}, model {want}) not loaded'
                   for key, (got, want) in self.mismatched.items()]
        missing = f'; missing {_names(self.missing)}' if self.missing else ''
        others = [f'{key} (checkpoint {got}, model {want})'
                  for key, (got, want) in self.reinitialised.items()]
        anew = [f'  re-initialised, as the classes are others: {len(others)}: {", ".join(others)}'
                ] if others else []
        return '\n'.join([
            f'  loaded: {len(self.loaded)}',
            f'  expected-missing: {_names(self.expected_missing)}',
            f'  unexpected: {_names(self.unexpected)}',
            f'  resized: {_names(shapes)}', *anew,
            f'  ratio: {_percent(self.ratio)} of the tensors of the model{missing}',
        ])


def _percent(share: float) -> str:
    """One decimal, rounded down: 100.0% means all."""
    return f'{int(share * 1000 + 1e-9) / 10:.1f}%'


def _names(names: list[str]) -> str:
    """Count and the first few names, for a person to read."""
    if not names:
        return '0'
    more = f', and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return f'{len(names)}: {", ".join(names[:_SHOWN])}{more}'


def load_state_dict(model: nn.Module, state_dict: Mapping[str, torch.Tensor], *, source: str,
                    prefix: str | None = None, min_ratio: float | None = None,
                    other_classes: bool = False) -> MatchReport:
    """Copy the tensors that fit into the model, after checking that enough do; log the report.

    Names are compared as they are and without a leading ``backbone.`` or ``model.``; the form with
    most matches is taken. Tensors of another shape are resized where the model's own loading
    hooks do so (position embeddings of mmpretrain's vision transformers, for example).

    Args:
        model: The model, not wrapped for distributed training.
        state_dict: Tensors by name, as :func:`read_checkpoint` gives them.
        source: Name of the checkpoint, for the message.
        prefix: Take the names that start with this only, without it.
        min_ratio: Least share of the model's tensors that must be filled; None: what
            :func:`loading_policy` says, 0.99 unless changed.
        other_classes: Leave layers that depend on the number of classes as the model began with
            them where the checkpoint has another number (:func:`find_class_layers`); for training.

    Returns:
        What was loaded, missing, unexpected and of another shape.

    Raises:
        CheckpointError: Fewer than ``min_ratio`` match; the model is unchanged.
    """
    least = current_policy().min_match if min_ratio is None else min_ratio
    wanted = model.state_dict()
    tensors = OrderedDict((plain_name(key), value)
                          for key, value in state_dict.items() if _is_dense(value))
    if not tensors:
        raise CheckpointError('checkpoint', f'{source} holds no dense tensors by name',
                              'the weights of a model')
    found, outside = _without_prefix(tensors, wanted, prefix, source)
    adapted = _adapt(model, found, source)
    report = _compare(model, wanted, found, adapted)
    report.unexpected += outside
    if other_classes:
        report.reinitialised = find_class_layers(model, report.mismatched)
        for key in report.reinitialised:
            del report.mismatched[key]
    if report.ratio < least:
        raise CheckpointError(
            'checkpoint', f'{source} does not fit the model',
            f'at least {100 * least:g}% of the tensors of {type(model).__name__}',
            'use the config it was trained with, convert it (tools/convert_checkpoint.py) if it '
            'was published by another project, or allow less with `min_match`', str(report))
    chosen = OrderedDict((key, adapted[key]) for key in report.loaded)
    if (prefix or '') == '' and not outside and hasattr(state_dict, '_metadata'):
        chosen._metadata = state_dict._metadata
    model.load_state_dict(chosen, strict=False)
    level = logging.WARNING if report.missing or report.mismatched else logging.INFO
    print_log(f'Loaded {source} into {type(model).__name__}:\n{report}', logger='current',
              level=level)
    return report


def _is_dense(value: Any) -> bool:
    return (isinstance(value, torch.Tensor) and value.layout is torch.strided
            and not value.is_quantized and not value.is_meta)


def _without_prefix(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor],
                    prefix: str | None, source: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Tensors under the model's names, and the names that lie outside the prefix."""
    if prefix:
        start = prefix.rstrip('.') + '.'
        found = {key[len(start):]: value for key, value in tensors.items() if key.startswith(start)}
        if not found:
            known = sorted({key.split('.')[0] for key in tensors})
            raise CheckpointError('prefix', f'got {prefix!r}', f'the start of names in {source}: '
                                  f'{", ".join(known[:_SHOWN])}')
        return found, []

    def matches(start: str) -> int:
        return sum(key[len(start):] in wanted for key in tensors if key.startswith(start))

    best = max(_PREFIXES, key=matches)
    found = {key[len(best):]: value for key, value in tensors.items() if key.startswith(best)}
    return found, [key for key in tensors if not key.startswith(best)]


def _adapt(model: nn.Module, found: Mapping[str, torch.Tensor],
           source: str) -> dict[str, torch.Tensor]:
    """The tensors as the loading hooks of the model's modules resize them."""
    state = dict(found)
    try:
        for name, module in model.named_modules():
            for hook in module._load_state_dict_pre_hooks.values():
                hook(state, f'{name}.' if name else '', {}, False, [], [], [])
    except Exception as error:  # a hook of another package met a tensor it did not expect
        raise CheckpointError(
            'checkpoint', f'{source} does not fit the model: {type(model).__name__} cannot resize '
            f'its tensors ({error})', remedy='use the config it was trained with') from error
    return {key: state.get(key, value) for key, value in found.items()}


def _compare(model: nn.Module, wanted: Mapping[str, torch.Tensor],
             found: Mapping[str, torch.Tensor], adapted: Mapping[str, torch.Tensor]) -> MatchReport:
    report = MatchReport(unexpected=[key for key in found if key not in wanted])
    lacking = set(_lacking_kinds(model, found))
    for key, value in wanted.items():
        if key not in found:
            expected = any(re.search(pattern, key) for pattern in lacking)
            (report.expected_missing if expected else report.missing).append(key)
            continue
        shapes = tuple(found[key].shape), tuple(value.shape)
        if adapted[key].shape != value.shape:
            report.mismatched[key] = shapes
            continue
        report.loaded.append(key)
        if found[key].shape != value.shape:
            report.resized[key] = shapes
    return report


def _lacking_kinds(model: nn.Module, found: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """Patterns of what a model of this class may lack and the checkpoint lacks entirely.

    The model says them itself: ``checkpoint_may_lack``, patterns of names that it owns and its
    pre-training legitimately lacks. A pattern counts only where the checkpoint has no tensor of
    that kind at all: half of them is damage.
    """
    for pattern in (*_MAY_LACK, *(find_trait(model, 'checkpoint_may_lack') or ())):
        if not any(re.search(pattern, key) for key in found):
            yield pattern
