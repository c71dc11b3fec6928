"""What PyTorch has to know about the raw operators: gradients, output shapes, batching.

The compiled library defines ``torch.ops.ops_dcn.*`` and nothing but its kernels. Here each operator
gets an ``autograd.Function`` (a sixth of the cost per call of ``torch.library.register_autograd``,
and it works with ``torch.func``), fake kernels for ``torch.compile``, ``torch.export`` and meta
tensors, and rules for ``torch.vmap``.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ops_dcn.reference import output_size

# Positions of the arguments that have a gradient, and the number of arguments, per operator.
_OPERATORS = {
    'dcnv3': ((0, 1, 2), 5),
    'dcnv4': ((0, 1), 5),
    'ms_deform_attn': ((0, 3, 4), 5),
    'flash_deform_attn': ((0, 3), 5),
}
_functions: dict[str, type[torch.autograd.Function]] = {}
_load_error = ''


def function(name: str) -> type[torch.autograd.Function]:
    """The ``autograd.Function`` of an operator; ``ImportError`` if the library is not built."""
    if _load_error:
        raise ImportError(_load_error)
    return _functions[name]


def register() -> None:
    """Load the compiled library and register everything of this module.

    A library that is missing is reported by the first operator that is called, so that
    ``import ops_dcn``, ``ops_dcn.reference`` and ``python -m ops_dcn.selftest`` work without it.
    """
    global _load_error
    try:
        from ops_dcn import _library
        _library.load()
    except ImportError as error:
        _load_error = str(error)
        return
    for name, (differentiable, arguments) in _OPERATORS.items():
        forward, backward = (getattr(torch.ops.ops_dcn, f'{name}_{direction}').default
                             for direction in ('forward', 'backward'))
        fake = _fake_convolution if name.startswith('dcn') else _fake_attention
        torch.library.register_fake(f'ops_dcn::{name}_forward', fake)
        torch.library.register_fake(f'ops_dcn::{name}_backward', _fake_backward(differentiable))
        for op in (forward, backward):
            torch.library.register_vmap(op, _vmap_rule(op))
        _functions[name] = _make_function(forward, backward, differentiable, arguments)


def _make_function(forward_op: Callable, backward_op: Callable, differentiable: tuple[int, ...],
                   arguments: int) -> type[torch.autograd.Function]:
    """One differentiable function of a raw operator and its raw backward."""

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


def _fake_convolution(value: Tensor, *rest: Any) -> Tensor:
    """Shape of the output of dcnv3 and dcnv4, whose last tensor is followed by the geometry."""
    geometry = next(item for item in rest if not isinstance(item, Tensor))
    size = [output_size(value.shape[1 + axis], *geometry[axis:8:2]) for axis in (0, 1)]
    return value.new_empty(value.shape[0], *size, value.shape[3])


def _fake_attention(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor,
                    locations: Tensor, *rest: Any) -> Tensor:
    """Shape of the output of both forms of multi-scale deformable attention."""
    n, _, groups, depth = value.shape
    return value.new_empty(n, locations.shape[1], groups * depth)


def _fake_backward(differentiable: tuple[int, ...]) -> Callable:
    def fake(grad_output: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
        return tuple(inputs[i].new_empty(inputs[i].shape) for i in differentiable)
    return fake


def _vmap_rule(op: Callable) -> Callable:
    """Fold the mapped dimension into the batch, which every floating tensor has in front."""
    def rule(info: Any, in_dims: tuple, *inputs: Any) -> tuple:
        size = info.batch_size
        folded = []
        for item, dim in zip(inputs, in_dims, strict=True):
            if isinstance(item, Tensor) and item.is_floating_point():
                item = item.movedim(dim, 0) if dim is not None else item.expand(size, *item.shape)
                item = item.flatten(0, 1).contiguous()
            elif isinstance(item, Tensor) and dim is not None:
                raise ValueError('spatial_shapes and level_start_index are not valid: got a '
                                 'dimension mapped by vmap, expected one set for all; map over '
                                 'the other arguments only')
            folded.append(item)
        result = op(*folded)
        many = isinstance(result, tuple)
        outputs = [t.unflatten(0, (size, t.shape[0] // size))
                   for t in (result if many else [result])]
        return (tuple(outputs), (0,) * len(outputs)) if many else (outputs[0], 0)
    return rule
