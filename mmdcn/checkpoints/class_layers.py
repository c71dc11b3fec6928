"""Layers whose shape follows the list of classes: what fine-tuning on other data begins anew."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from torch import nn

Shape = tuple[int, ...]
# What heads put beside their classes: nothing, a background (and an objectness), a box with its
# score; one less where the last class is what the others are not.
_EXTRAS = (0, 1, 2, 5, -1)
# Most rows of a class: four coordinates, or one for each anchor of a place.
_MOST_ROWS = 36


def find_class_layers(model: nn.Module, mismatched: Mapping[str, tuple[Shape, Shape]],
                      ) -> dict[str, tuple[Shape, Shape]]:
    """Those of the mismatched tensors that another number of classes explains.

    Such a tensor lies in a head, a module that says its ``num_classes`` (the model itself and
    backbones do not count), and differs in one dimension only. Its first dimension is
    ``rows * (classes + extra)`` in the model and in the checkpoint, with few rows and an extra as
    for a background; another dimension differs by as much as the classes do. All tensors of heads
    of one ``num_classes`` must agree on the number of classes in the checkpoint.

    Args:
        model: The model.
        mismatched: Shape in the checkpoint and in the model, by name.

    Returns:
        The part of ``mismatched`` that is explained.
    """
    heads = {f'{name}.': module.num_classes for name, module in model.named_modules()
             if name and 'backbone' not in name.split('.')
             and type(getattr(module, 'num_classes', None)) is int and module.num_classes > 0}
    found: dict[int, dict[str, set[int]]] = defaultdict(dict)
    for name, (old, new) in mismatched.items():
        head = max((head for head in heads if name.startswith(head)), key=len, default=None)
        if head is not None:
            guesses = set(_other_classes(old, new, heads[head]))
            if guesses:
                found[heads[head]][name] = guesses
    return {name: mismatched[name] for guesses in found.values()
            if set.intersection(*guesses.values()) for name in guesses}


def _other_classes(old: Shape, new: Shape, classes: int) -> Iterator[int]:
    """Numbers of classes that turn the new shape, that of ``classes``, into the old one."""
    differing = [i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]
    if len(old) != len(new) or len(differing) != 1:
        return
    was, now = old[differing[0]], new[differing[0]]
    if differing[0] > 0:  # a head that reads its own scores
        if classes + was - now > 0:
            yield classes + was - now
        return
    for extra in _EXTRAS:
        rows, rest = divmod(now, classes + extra) if classes + extra > 0 else (0, 1)
        if not rest and 1 <= rows <= _MOST_ROWS and not was % rows and was // rows > extra:
            yield was // rows - extra
