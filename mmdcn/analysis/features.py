"""Outputs of any layer of a model, by the layer's name."""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmdcn.errors import UserError, suggest


def match_layers(model: nn.Module, patterns: Sequence[str]) -> dict[str, list[str]]:
    """Names of the submodules that each pattern names, in the model's order.

    Args:
        model: Any module.
        patterns: Names as in ``model.named_modules()``. ``*`` stands for any part of a name
            between two dots, ``**`` also for dots: ``backbone.levels.*.blocks.0.dcn``.

    Raises:
        UserError (a ValueError): A pattern names no submodule; the message lists near ones.
    """
    if isinstance(patterns, str):
        raise UserError('layers', f'got {patterns!r}', 'a list of names',
                        f'write [{patterns!r}]')
    names = [name for name, _ in model.named_modules() if name]
    found = {}
    for pattern in patterns:
        escaped = re.escape(pattern).replace(r'\*\*', '.*').replace(r'\*', '[^.]*')
        matching = [name for name in names if re.fullmatch(escaped, name)]
        if not matching:
            raise UserError(
                'layer', f'got {pattern!r}', f'the name of a module of {type(model).__name__}',
                suggest(pattern, names) or f'the parts of the model are {_parts(model)}')
        found[pattern] = matching
    return found


@contextmanager
def record_features(model: nn.Module, layers: Sequence[str], *,
                    grad: bool = False) -> Iterator[dict[str, Tensor]]:
    """Record what some layers put out while the block runs the model in any way.

    Args:
        model: Any module; its mode (training or evaluation) is left as it is.
        layers: Names or patterns as in :func:`match_layers`.
        grad: Record the tensors of the graph themselves. Without it copies are recorded, which
            layers that work in place cannot change later, and the block makes no graph.

    Yields:
        A dictionary that fills in the order of the calls. A layer that puts out several tensors
        gives ``NAME.0``, ``NAME.1``, ... (or ``NAME.KEY`` for a dictionary), nested ones one more
        part per depth; from its second call on a layer is called ``NAME@1``, ``NAME@2``, ...

    Raises:
        UserError (a ValueError): A layer is unknown, or was not called in the block, or put out
            no tensor. Of the layers of a pattern one with a tensor is enough.
    """
    matches = match_layers(model, layers)
    names = list(dict.fromkeys(name for matching in matches.values() for name in matching))
    features: dict[str, Tensor] = {}
    calls = dict.fromkeys(names, 0)
    silent = set(names)

    def make_hook(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            title = f'{name}@{calls[name]}' if calls[name] else name
            calls[name] += 1
            for key, tensor in _tensors(title, output):
                features[key] = tensor if grad else tensor.detach().clone()
                silent.discard(name)
        return hook

    handles = [model.get_submodule(name).register_forward_hook(make_hook(name)) for name in names]
    try:
        with nullcontext() if grad else torch.no_grad():
            yield features
    finally:
        for handle in handles:
            handle.remove()
    for pattern, matching in matches.items():
        if silent.issuperset(matching):
            reason = 'puts out no tensor' if calls[matching[0]] else 'was not called'
            raise UserError('layer', f'{pattern} {reason} in this run of the model',
                            remedy='choose another layer')


def get_features(model: nn.Module, x: Any, layers: Sequence[str], *,
                 grad: bool = False) -> dict[str, Tensor]:
    """Outputs of some layers for the input ``x``.

    Args:
        model: Any module; call ``model.eval()`` first unless training behaviour is wanted.
        x: What the model is called with, commonly images (N, 3, H, W).
        layers: Names or patterns, e.g. ``['backbone.levels.*', 'neck']``.
        grad: Keep the graph, for gradients of or with respect to the features.

    Returns:
        Features by layer name, see :func:`record_features`.

    Raises:
        UserError (a ValueError): A layer is unknown, is not called, or puts out no tensor.
    """
    with record_features(model, layers, grad=grad) as features:
        model(x)
    return features


def _tensors(name: str, output: Any) -> Iterator[tuple[str, Tensor]]:
    """Tensors of nested sequences and dictionaries, with their names."""
    if isinstance(output, Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _tensors(f'{name}.{key}', value)
    elif isinstance(output, list | tuple):
        for i, value in enumerate(output):
            yield from _tensors(f'{name}.{i}', value)


def _parts(model: nn.Module) -> str:
    return ', '.join(name for name, _ in model.named_children()) or 'none'
