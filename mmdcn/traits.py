"""What a module says of itself, or what a plug-in says on behalf of a class that is not ours.

A backbone answers by a method or an attribute of its own: ``get_layer_depth``, ``get_stage_depth``
and ``get_finetune_depth`` (layer decay; see ``mmdcn.engine.optimizers``), ``checkpoint_may_lack``
(patterns of names; see ``mmdcn.checkpoints.matching``). OpenMMLab's classes lack some of these; the
plug-in that knows them answers in their place.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

_Answer = Callable[[nn.Module], Any]
_ANSWERS: dict[str, list[_Answer]] = {}


def answers(trait: str) -> Callable[[_Answer], _Answer]:
    """Decorator of a function (module) -> trait, which gives None for modules it does not know."""
    def register(answer: _Answer) -> _Answer:
        _ANSWERS.setdefault(trait, []).append(answer)
        return answer
    return register


def find_trait(module: nn.Module, trait: str) -> Any:
    """A trait of a module: its own attribute first, then what is answered for it, else None."""
    if hasattr(module, trait):
        return getattr(module, trait)
    found = (answer(module) for answer in _ANSWERS.get(trait, ()))
    return next((value for value in found if value is not None), None)
