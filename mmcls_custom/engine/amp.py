"""Mixed precision training on CPUs."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Optimizer wrapper that runs the forward under bfloat16 autocast on a CPU.

    bfloat16 has the exponent range of float32, so the loss is not scaled.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of one training iteration's forward."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield
