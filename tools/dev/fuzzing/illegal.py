"""Random illegal calls: a legal one with one thing broken, and what must be said about it."""
from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

import ops_dcn
from ops_dcn.operators import Call
from tools.dev.fuzzing import legal

_FOUR_PARTS = re.compile(r'(?s)(\w+)(\S*) is not valid: got .+, expected .+; .+')
# What no size, step or count can be.
_NO_COUNT = (0, -1, -(2**63), 2**31, 2**61, 2**63, 10**30, 1.0, 2.5, math.nan, '3', None, True,
             [3], (1, 2, 3), [], [2, 'a'], (1, None), {'h': 3}, torch.tensor(3), np.int64(3),
             np.array([3, 3]))
_NO_SCALE = (math.nan, math.inf, -math.inf, 10**400, '1', None, True, 1j, [1.0], (1.0, 1.0),
             np.array([1.0, 2.0]), torch.ones(2))
_NO_FLAG = ('yes', 2, -1, None, 0.5, [], [True], torch.ones(2), np.array([True, False]))


def draw_call(name: str, rng: Random) -> tuple[str, Call]:
    """An illegal call, and what was done to a legal one.

    Args:
        name: Of the operator.
        rng: Decides everything, together with torch's own generator.
    """
    while True:
        call = legal.draw_call(name, rng)
        key = rng.choice([*call.tensors, *call.options])
        if key in call.tensors:
            floating = call.tensors[key].is_floating_point()
            change = rng.choice(_TENSOR_CHANGES if floating else _LEVEL_CHANGES)
            broken = change(call.tensors[key], rng, call, key)
            if broken is None:
                continue
            done = f'{key}: {change.__name__.strip("_")}'
            return done, replace(call, tensors={**call.tensors, key: broken})
        wrong = _wrong_option(key, call, rng)
        if wrong is not None:
            return f'{key}={wrong[0]!r}', replace(call, options={**call.options, key: wrong[0]})


def find_fault(name: str, call: Call) -> str | None:
    """What is wrong with the refusal of an illegal call; None if nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about nested and quantized tensors
            getattr(ops_dcn, name)(*call.tensors.values(), **call.options)
    except ValueError as error:
        parts = _FOUR_PARTS.fullmatch(str(error))
        if type(error) is not ValueError or parts is None:
            return f'{type(error).__name__} in another form: {error}'
        if parts[1] not in {*call.tensors, *call.options}:
            return f'names no argument: {error}'
        return None
    except Exception as error:  # what is looked for
        return f'{type(error).__name__}: {str(error)[:200]}'
    return 'accepted'


def _wrong_option(key: str, call: Call, rng: Random) -> tuple[Any] | None:
    if key in ('remove_center', 'softmax'):
        return (rng.choice(_NO_FLAG),)
    if key == 'offset_scale':
        single = next(iter(call.tensors.values())).dtype != torch.float64
        return (rng.choice([*_NO_SCALE, *([1e39, -1e300] if single else [])]),)
    wrong = rng.choice(_NO_COUNT)
    pair = key not in ('groups', 'num_points')
    if key == 'padding' and type(wrong) is int and wrong == 0:
        return None
    if pair and rng.random() < 0.4 and not isinstance(wrong, list | tuple):
        return ((wrong, 1) if rng.random() < 0.5 else [1, wrong],)
    return (wrong,)


def _no_tensor(tensor: Tensor, rng: Random, call: Call, key: str) -> Any:
    return rng.choice([None, 1.0, 'x', tensor.tolist(), np.zeros(tensor.shape), [tensor]])


def _other_dtype(tensor: Tensor, rng: Random, call: Call, key: str) -> Tensor:
    kinds = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64,
             torch.float8_e4m3fn]
    others = [kind for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
              if kind != tensor.dtype]
    return torch.zeros(tensor.shape, dtype=rng.choice([*kinds, *others]))


def _other_rank(tensor: Tensor, rng: Random, call: Call, key: str) -> Tensor:
    return rng.choice([tensor.unsqueeze(0), tensor.unsqueeze(-1), tensor[0], tensor.flatten(),
                       tensor.new_zeros(())]) if tensor.shape[0] else tensor.unsqueeze(0)


def _other_size(tensor: Tensor, rng: Random, call: Call, key: str) -> Tensor | None:
    """Of the points any axis; of value the batch, and channels that groups do not divide."""
    axis = rng.randrange(tensor.dim())
    size = list(tensor.shape)
    size[axis] += rng.choice([1, 2, 16, -1])
    if key == 'value':
        groups = call.options.get('groups', 1)
        if axis != 0 and not (axis == 3 and size[3] % groups):
            return None
    if key == 'offset_mask' and axis == 3:
        size[3] = tensor.shape[3] + rng.choice([16, 1001])
    single = len(call.tensors) == 2 or key == 'sampling_loc_attn'
    if min(size) < 0 or (axis == 1 and key.startswith('sampling') and single):
        return None  # another number of queries is legal where nothing else has them
    return tensor.new_zeros(size)


def _enormous(tensor: Tensor, rng: Random, call: Call, key: str) -> Tensor | None:
    """Sizes that only an empty tensor can have."""
    size = [0, *tensor.shape[1:]]
    if key != 'value':
        return None
    axis = rng.randrange(1, tensor.dim())
    size[axis] = rng.choice([2**40, 2**61, 2**62 - 1])
    try:
        return tensor.new_empty(size)
    except RuntimeError:  # torch itself has no room for its strides
        return None


def _other_layout(tensor: Tensor, rng: Random, call: Call, key: str) -> Tensor | None:
    dense = torch.ones(tensor.shape, dtype=tensor.dtype)
    kind = rng.randrange(5)
    if kind == 0:
        return dense.to_sparse()
    if kind == 1:
        return dense.to_sparse(1)
    single = tensor.dtype in (torch.float32, torch.bfloat16)
    if kind == 2 and tensor.numel() and single and tensor.dim() <= 5:
        return dense.to_mkldnn()
    if kind == 3 and tensor.shape[0] > 1:
        return torch.nested.nested_tensor(list(dense))
    if kind == 4 and tensor.shape[0] > 1:
        return torch.nested.nested_tensor(list(dense), layout=torch.jagged)
    return None


def _quantized(tensor: Tensor, rng: Random, call: Call, key: str) -> Tensor:
    return torch.quantize_per_tensor(torch.zeros(tensor.shape), 0.1, 0, torch.qint8)


def _other_device(tensor: Tensor, rng: Random, call: Call, key: str) -> Tensor:
    return tensor.to('meta')


def _level_no_int64(tensor: Tensor, rng: Random, call: Call, key: str) -> Any:
    return rng.choice([tensor.int(), tensor.double(), tensor.tolist(), None, tensor.bool(),
                       tensor.numpy()])


def _level_layout(tensor: Tensor, rng: Random, call: Call, key: str) -> Any:
    return rng.choice([tensor.to_sparse(), tensor.to('meta'),
                       torch.nested.nested_tensor([tensor])])


def _level_shape(tensor: Tensor, rng: Random, call: Call, key: str) -> Any:
    return rng.choice([tensor[:0], tensor.unsqueeze(0), torch.cat([tensor, tensor]),
                       tensor.new_ones(()), torch.cat([tensor, tensor[:1]])])


def _level_values(tensor: Tensor, rng: Random, call: Call, key: str) -> Tensor:
    """A level outside of value."""
    wrong = tensor.clone(memory_format=torch.contiguous_format)
    flat = wrong.view(-1)
    flat[rng.randrange(len(flat))] = rng.choice([-1, -(2**62), 2**31, 2**62, 10**6])
    return wrong


_Change = Callable[[Tensor, Random, Call, str], Any]
_TENSOR_CHANGES: tuple[_Change, ...] = (
    _no_tensor, _other_dtype, _other_rank, _other_size, _other_size, _enormous, _other_layout,
    _other_layout, _quantized, _other_device)
_LEVEL_CHANGES: tuple[_Change, ...] = (_level_no_int64, _level_layout, _level_shape, _level_values)

