"""Parameters and multiply-adds of a model, the way the papers count them.

Counted are matrix products (linear layers, attention), convolutions and the deformable operators.
Not counted are norms, activations, biases, softmax, pooling and interpolation: below 1 % of the
published networks. A deformable operator costs 5 multiply-adds per sampling point and channel: four
for the bilinear corners and one for the weight, the convention of the figures published for
InternImage (arXiv:2211.05778). The papers write "FLOPs" for multiply-adds.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

import ops_dcn

_BY_SIZES = (torch.split, Tensor.split, torch.reshape, Tensor.reshape, Tensor.view)
_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


@dataclass(frozen=True)
class Complexity:
    """Size and cost of a model.

    Args:
        params: Number of parameters; one that several modules share counts once.
        macs: Multiply-adds of one forward pass of the whole batch.
        by_module: Multiply-adds by qualified module name, those of its children included; modules
            without any are dropped. ``''`` is the model itself.
    """

    params: int
    macs: int
    by_module: dict[str, int]

    def outside_modules(self, name: str) -> int:
        """Multiply-adds of a module that none of the modules within it does, by its name."""
        prefix = f'{name}.' if name else ''
        inside = {other: macs for other, macs in self.by_module.items()
                  if other != name and other.startswith(prefix)}
        outermost = (macs for other, macs in inside.items() if not any(
            other.startswith(f'{above}.') for above in inside))
        return self.by_module.get(name, 0) - sum(outermost)


def count(model: nn.Module, input_shape: Sequence[int],
          forward: Callable[[Tensor], Any] | None = None) -> Complexity:
    """Count a model's parameters and the multiply-adds of one forward pass.

    The pass runs in eval mode, without gradients, on the device of the parameters. A model on the
    meta device (:func:`build_on_meta`) is counted without memory or arithmetic.

    Args:
        model: The model.
        input_shape: Shape of the input tensor with its batch dimension, e.g. (1, 3, 224, 224).
        forward: What is called with the input instead of the model itself, e.g.
            ``model.extract_feat``; modules that are not parts of the model are in the sum only.

    Raises:
        ValueError: ``input_shape`` holds anything but positive integers.
    """
    if not all(isinstance(size, int) and size > 0 for size in input_shape):
        raise ValueError(f'input_shape is not valid: got {tuple(input_shape)}, expected positive '
                         'integers, the batch first')
    tensor = next(model.parameters(), torch.empty(0))
    image = torch.zeros(*input_shape, device=tensor.device, dtype=tensor.dtype)
    root = _Root(model, forward or model)
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    with _evaluating(root), _NumbersOnHost(), counter:
        root(image)
    macs = counter.get_total_flops() // 2
    by_module = {'': macs}
    prefix = f'{_Root.__name__}.model.'
    for name, flops in counter.get_flop_counts().items():
        if name.startswith(prefix):
            by_module[name.removeprefix(prefix)] = sum(flops.values()) // 2
    return Complexity(sum(p.numel() for p in model.parameters()), macs, by_module)


def build_on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a model on the meta device: names, shapes and dtypes without memory.

    Unlike ``torch.device('meta')`` it leaves ranges of numbers alone, since constructors read the
    rates of stochastic depth from them.

    Args:
        build: Makes the model, e.g. ``lambda: MODELS.build(cfg)``.
    """
    with _MetaWeights():
        model = build()
    return model.to('meta')


class _MetaWeights(TorchFunctionMode):
    def __torch_function__(self, func: Callable, types: Any, args: tuple = (),
                           kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _FACTORIES and kwargs.get('device') is None:
            kwargs['device'] = 'meta'
        return func(*args, **kwargs)


class _NumbersOnHost(TorchFunctionMode):
    """Keeps integers on the CPU in a pass on the meta device, where they could not be read.

    Heads put the sizes of maps into tensors, move these to the device and later split or reshape
    by them. Where such a tensor meets one of the meta device, an empty one takes its place.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (),
                           kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.to and not args[0].is_meta and not args[0].is_floating_point():
            moved = func(*args, **kwargs)
            return args[0].to(moved.dtype) if moved.is_meta else moved
        if func not in _BY_SIZES and any(
                isinstance(arg, Tensor) and arg.is_meta for arg in (*args, *kwargs.values())):
            args = tuple(map(_to_meta, args))
            kwargs = {name: _to_meta(arg) for name, arg in kwargs.items()}
        return func(*args, **kwargs)


def _to_meta(arg: Any) -> Any:
    return torch.empty_like(arg, device='meta') if isinstance(arg, Tensor) else arg


class _Root(nn.Module):
    """Gives the counter one known name above all modules of the model."""

    def __init__(self, model: nn.Module, call: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.model = model
        self._call = (call,)  # in a tuple, so that it is not registered as a second child

    def forward(self, x: Tensor) -> Any:
        return self._call[0](x)


@contextmanager
def _evaluating(root: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; the one-kernel attention of eval mode hides its products."""
    modes = {module: module.training for module in root.modules()}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    root.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, training in modes.items():
            module.training = training


def _formulas() -> dict[Any, Callable[..., int]]:
    """FLOPs, two per multiply-add, of the operators that torch's counter does not know."""
    ours = {raw: _twice(macs) for raw, macs in ops_dcn.multiply_adds().items()}
    return {**ours, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _sdpa_flops}


def _twice(macs: Callable[..., int]) -> Callable[..., int]:
    return lambda *inputs, **options: 2 * macs(*inputs, **options)


def _sdpa_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *rest: Any,
                **options: Any) -> int:
    return sdpa_flop_count(query, key, value)
