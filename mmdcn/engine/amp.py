"""Mixed precision on CPUs."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.utils import apply_to
from torch import nn


def _forward(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a forward in bfloat16 and give its floating-point outputs as float32."""
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outputs = original(*args, **kwargs)
    return apply_to(outputs, lambda x: isinstance(x, torch.Tensor) and x.is_floating_point(),
                    lambda x: x.float())


@contextmanager
def bfloat16_features(model: nn.Module) -> Iterator[None]:
    """Run backbone and neck of a model under bfloat16 autocast on a CPU.

    They do nearly all of the work. Heads and losses stay in float32: box coordinates need more
    than the 8 bits of bfloat16, and non-maximum suppression on CPUs takes float32 only.

    Args:
        model: Model of any task, wrapped for distributed training or test-time augmentation or not.
    """
    inner = model
    while is_model_wrapper(inner) or isinstance(inner, BaseTTAModel):
        inner = inner.module
    parts = [part for name in ('backbone', 'neck')
             if isinstance(part := getattr(inner, name, None), nn.Module)]
    # A forward of the object itself, as an enclosing block gives it one, comes back afterwards.
    own = [(part, vars(part).get('forward')) for part in dict.fromkeys(parts)]
    for part, _ in own:
        part.forward = partial(_forward, part.forward)
    try:
        yield
    finally:
        for part, forward in own:
            if forward is None:
                del part.forward
            else:
                part.forward = forward


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Optimizer wrapper that trains backbone and neck in bfloat16 on a CPU.

    bfloat16 has the exponent range of float32, so the loss is not scaled.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of one training iteration's forward."""
        with super().optim_context(model), bfloat16_features(model):
            yield
