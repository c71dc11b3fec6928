"""What PyTorch has to know about the raw operators: gradients, output shapes, batching.

The compiled library defines ``torch.ops.ops_dcn.*`` and nothing but its kernels. Here each operator
gets an ``autograd.Function`` (a sixth of the cost per call of ``torch.library.register_autograd``,
and it works with ``torch.func``), fake kernels for ``torch.compile``, ``torch.export`` and meta
tensors, and rules for ``torch.vmap``.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ops_dcn import _library
from ops_dcn.operators import OPERATORS

_functions: dict[str, type[torch.autograd.Function]] = {}
_traced: dict[str, Any] = {}
_load_error = ''


def function(name: str) -> type[torch.autograd.Function]:
    """The ``autograd.Function`` of an operator; ``ImportError`` if the library is not built."""
    if _load_error:
        raise ImportError(_load_error)
    # A Python function in a graph of torch.jit.trace could not be saved; the raw operator can.
    return (_traced if torch.jit.is_tracing() else _functions)[name]


def register() -> None:
    """Load the compiled library and register everything of this module.

    A library that is missing is reported by the first operator that is called, so that
    ``import ops_dcn``, ``ops_dcn.reference`` and ``python -m ops_dcn.selftest`` work without it.
    """
    global _load_error
    try:
        _library.load()
    except ImportError as error:
        _load_error = str(error)
        return
    for name, operator in OPERATORS.items():
        raw = [getattr(torch.ops.ops_dcn, direction).default for direction in operator.raw]
        fakes = (operator.fake, _fake_backward(operator.differentiable))
        for op, fake in zip(raw, fakes, strict=True):
            torch.library.register_fake(op.name(), fake)
            torch.library.register_vmap(op, _vmap_rule(op))
        _functions[name] = make_function(*raw, operator.differentiable)
        _traced[name] = SimpleNamespace(apply=raw[0])


def make_function(forward_op: torch._ops.OpOverload, backward_op: torch._ops.OpOverload,
                  differentiable: tuple[int, ...]) -> type[torch.autograd.Function]:
    """One differentiable function of a raw operator and its raw backward.

    Args:
        forward_op: The raw operator.
        backward_op: Its backward: the gradient of the output comes first, the arguments follow.
        differentiable: Positions of the arguments whose gradients the backward returns.
    """
    arguments = len(forward_op._schema.arguments)

    class Backward(torch.autograd.Function):
        """The backward operator when somebody records a graph of it: refuses the second derivative.

        Without it a gradient penalty would be dropped silently.
        """

        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs: Any) -> tuple[Tensor, ...]:
            return backward_op(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Tensor) -> None:
            raise RuntimeError(f'{forward_op.name()} cannot be differentiated twice; use the '
                               'function of the same name in ops_dcn.reference')

    class Forward(torch.autograd.Function):
        """The operator."""

        # The raw operators have a vmap rule, so that of the function follows from them.
        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs: Any) -> Tensor:
            return forward_op(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
            tensors = [item for item in inputs if isinstance(item, Tensor)]
            ctx.save_for_backward(*tensors)
            ctx.options = inputs[len(tensors):]

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
            inputs = (grad_output.contiguous(), *ctx.saved_tensors, *ctx.options,
                      torch.are_deterministic_algorithms_enabled())
            recorded = torch.is_grad_enabled() and not torch.compiler.is_compiling()
            results = Backward.apply(*inputs) if recorded else backward_op(*inputs)
            grads: list[Tensor | None] = [None] * arguments
            for position, grad in zip(differentiable, results, strict=True):
                grads[position] = grad
            return tuple(grads)

    # torch.compile counts the parameters to tell whether forward takes a context.
    Forward.forward.__signature__ = inspect.Signature(
        [inspect.Parameter(f'x{i}', inspect.Parameter.POSITIONAL_ONLY) for i in range(arguments)])
    return Forward


def _fake_backward(differentiable: tuple[int, ...]) -> Callable:
    def fake(grad_output: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
        return tuple(inputs[i].new_empty(inputs[i].shape) for i in differentiable)
    return fake


def _vmap_rule(op: Callable) -> Callable:
    """Fold the mapped dimension into the batch, which every floating tensor has in front."""
    def rule(info: Any, in_dims: tuple, *inputs: Any) -> tuple:
        size = info.batch_size
        batch = None  # of one example; the mapped dimension may be empty
        folded = []
        for item, dim in zip(inputs, in_dims, strict=True):
            if isinstance(item, Tensor) and item.is_floating_point():
                item = item.movedim(dim, 0) if dim is not None else item.expand(size, *item.shape)
                batch = item.shape[1]
                item = item.flatten(0, 1).contiguous()
            elif isinstance(item, Tensor) and dim is not None:
                raise ValueError('spatial_shapes and level_start_index are not valid: got a '
                                 'dimension mapped by vmap, expected one set for all; map over '
                                 'the other arguments only')
            folded.append(item)
        result = op(*folded)
        many = isinstance(result, tuple)
        outputs = [t.reshape(size, batch, *t.shape[1:]) for t in (result if many else [result])]
        return (tuple(outputs), (0,) * len(outputs)) if many else (outputs[0], 0)
    return rule
