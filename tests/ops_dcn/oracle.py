"""The operators and their gradients as loops in NumPy: float64, one bilinear sample at a time.

Written from the semantics (docs/operators.md), with gradients derived by hand. It shares nothing
with ``ops_dcn``, neither code nor tables, so that a mistake there cannot be in both.

Every function takes arrays named as those of ``ops_dcn``, ``grad_output`` and the options, and
returns ``output`` and ``grad_NAME`` for each floating array, by name.
"""
from __future__ import annotations

import functools
import inspect
import math
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
Outcome = dict[str, Array]


def dcnv3(value: Array, offset: Array, mask: Array, grad_output: Array, *, groups: int,
          **geometry: Any) -> Outcome:
    """Offsets are pairs (x, y) per group and point; the mask is used as it is."""
    rows = (*offset.shape[:3], groups, point_count(**geometry))
    output, grads = _convolution(value, offset.reshape(*rows, 2), mask.reshape(rows), grad_output,
                                 **geometry)
    shapes = (value.shape, offset.shape, mask.shape)
    return _named(output, ('value', 'offset', 'mask'),
                  [grad.reshape(shape) for grad, shape in zip(grads, shapes, strict=True)])


def dcnv4(value: Array, offset_mask: Array, grad_output: Array, *, groups: int,
          softmax: bool = False, **geometry: Any) -> Outcome:
    """Per group all pairs (x, y), then all mask values; whatever follows the groups is unused."""
    points = point_count(**geometry)
    # Where each number of (group, point) lies in the last axis.
    first = 3 * points * np.arange(groups)[:, None]
    at_mask = first + 2 * points + np.arange(points)
    at_offset = np.stack([first + 2 * np.arange(points) + axis for axis in (0, 1)], -1)
    weight = offset_mask[..., at_mask]
    if softmax:
        weight = _softmax(weight)
    output, (grad_value, grad_offset, grad_weight) = _convolution(
        value, offset_mask[..., at_offset], weight, grad_output, **geometry)
    grad = np.zeros(offset_mask.shape)
    grad[..., at_offset] = grad_offset
    grad[..., at_mask] = _softmax_grad(weight, grad_weight) if softmax else grad_weight
    return _named(output, ('value', 'offset_mask'), [grad_value, grad])


def ms_deform_attn(value: Array, spatial_shapes: Array, level_start_index: Array,
                   sampling_locations: Array, attention_weights: Array,
                   grad_output: Array) -> Outcome:
    """Locations are pairs (x, y), where 0 and 1 are the outer edges of the level."""
    output, grads = _attention(value, spatial_shapes, level_start_index, sampling_locations,
                               attention_weights, grad_output)
    return _named(output, ('value', 'sampling_locations', 'attention_weights'), grads)


def flash_deform_attn(value: Array, spatial_shapes: Array, level_start_index: Array,
                      sampling_loc_attn: Array, grad_output: Array, *, num_points: int) -> Outcome:
    """Per head all pairs (x, y), then all logits, whose softmax goes over levels and points."""
    levels = (len(spatial_shapes), num_points)
    split = 2 * math.prod(levels)
    rows = sampling_loc_attn.shape[:3]
    weights = _softmax(sampling_loc_attn[..., split:])
    output, (grad_value, grad_locations, grad_weights) = _attention(
        value, spatial_shapes, level_start_index,
        sampling_loc_attn[..., :split].reshape(*rows, *levels, 2), weights.reshape(*rows, *levels),
        grad_output)
    grad_logits = _softmax_grad(weights, grad_weights.reshape(weights.shape))
    return _named(output, ('value', 'sampling_loc_attn'), [grad_value, np.concatenate(
        [grad_locations.reshape(*rows, split), grad_logits], -1)])


def outcome(op: str, tensors: dict[str, torch.Tensor], options: dict[str, Any],
            grad_output: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output and gradients of an operator as float64 tensors, from tensors of any dtype."""
    arrays = {name: tensor.detach().double().numpy() if tensor.is_floating_point()
              else tensor.numpy() for name, tensor in tensors.items()}
    found = globals()[op](**arrays, grad_output=grad_output.detach().double().numpy(), **options)
    return {name: torch.from_numpy(array) for name, array in found.items()}


def point_count(kernel_size: Any = 3, remove_center: bool = False, **unused: Any) -> int:
    """K, kernel points."""
    return math.prod(_axes(kernel_size)) - bool(remove_center)


def call(op: str, *tensors: torch.Tensor, **options: Any) -> torch.Tensor:
    """An operator as a function of tensors, in their dtype, that autograd can differentiate."""
    return _Call.apply(op, options, *tensors)


class Functions:
    """In the place of the module ``ops_dcn``: the same functions, by the oracle."""

    dcnv3, dcnv4, ms_deform_attn, flash_deform_attn = (
        staticmethod(functools.partial(call, op))
        for op in ('dcnv3', 'dcnv4', 'ms_deform_attn', 'flash_deform_attn'))


class _Call(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: str, options: dict[str, Any], *tensors: torch.Tensor) -> torch.Tensor:
        ctx.op, ctx.options = op, options
        ctx.save_for_backward(*tensors)
        shape = output_shape(op, [tuple(tensor.shape) for tensor in tensors], options)
        return _Call.run(ctx, tensors, torch.zeros(shape))[0].to(tensors[0].dtype)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[Any, ...]:
        grads = iter(_Call.run(ctx, ctx.saved_tensors, grad_output)[1:])
        return None, None, *(next(grads).to(tensor.dtype) if tensor.is_floating_point() else None
                             for tensor in ctx.saved_tensors)

    @staticmethod
    def run(ctx: Any, tensors: tuple[torch.Tensor, ...], grad_output: torch.Tensor
            ) -> list[torch.Tensor]:
        names = list(inspect.signature(globals()[ctx.op]).parameters)
        named = dict(zip(names, tensors, strict=False))
        return list(outcome(ctx.op, named, ctx.options, grad_output).values())


def output_shape(op: str, shapes: list[tuple[int, ...]], options: dict[str, Any]
                 ) -> tuple[int, ...]:
    """Shape of the output of an operator whose tensors have these shapes."""
    if op in ('ms_deform_attn', 'flash_deform_attn'):
        n, _, groups, depth = shapes[0]
        return n, shapes[3][1], groups * depth
    geometry = {name: options[name] for name in options if name not in ('groups', 'softmax')}
    return (shapes[0][0], *_output_size(shapes[0][1:3], **geometry), shapes[0][3])


def _named(output: Array, names: tuple[str, ...], grads: list[Array]) -> Outcome:
    return {'output': output, **{f'grad_{name}': grad
                                 for name, grad in zip(names, grads, strict=True)}}


def _seen(x: float, y: float, height: int, width: int
          ) -> list[tuple[int, int, float, float, float]]:
    """The pixels that a point sees: row, column, weight, slope of the weight in x and in y.

    None where it does not lie strictly between -1 and the size on both axes; no comparison with
    NaN is true, so that neither does it.
    """
    if not (-1 < x < width and -1 < y < height):
        return []
    column, row = math.floor(x), math.floor(y)
    right, down = x - column, y - row
    found = []
    for r, along_y, slope_y in ((row, 1 - down, -1.0), (row + 1, down, 1.0)):
        for c, along_x, slope_x in ((column, 1 - right, -1.0), (column + 1, right, 1.0)):
            if 0 <= r < height and 0 <= c < width:
                found.append((r, c, along_y * along_x, along_y * slope_x, slope_y * along_x))
    return found


def _sample(image: Array, x: float, y: float, weight: float, grad_output: Array,
            grad_image: Array) -> tuple[Array, float, float, float]:
    """One weighted sample of ``image`` (H, W, D).

    Adds to ``grad_image`` and returns what is added to the output (D,), and the gradients of x, y
    and weight.
    """
    sample, along_x, along_y = (np.zeros(image.shape[2]) for _ in range(3))
    pixels = _seen(x, y, *image.shape[:2])
    for row, column, part, slope_x, slope_y in pixels:
        pixel = image[row, column]
        sample += part * pixel
        along_x += slope_x * pixel
        along_y += slope_y * pixel
        grad_image[row, column] += weight * part * grad_output
    if not pixels:  # an infinite weight counts for nothing as well
        return sample, 0.0, 0.0, 0.0
    return (weight * sample, weight * float(along_x @ grad_output),
            weight * float(along_y @ grad_output), float(sample @ grad_output))


def _axes(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _output_size(size: tuple[int, ...], kernel_size: Any = 3, stride: Any = 1, padding: Any = 1,
                 dilation: Any = 1, **unused: Any) -> tuple[int, ...]:
    return tuple((length + 2 * pad - (dilate * (kernel - 1) + 1)) // step + 1
                 for length, kernel, step, pad, dilate in zip(
                     size, *map(_axes, (kernel_size, stride, padding, dilation)), strict=True))


def _convolution(value: Array, offset: Array, weight: Array, grad_output: Array, *,
                 kernel_size: Any = 3, stride: Any = 1, padding: Any = 1, dilation: Any = 1,
                 offset_scale: float = 1.0, remove_center: bool = False
                 ) -> tuple[Array, list[Array]]:
    """Offset (N, Ho, Wo, G, K, 2) and weight (N, Ho, Wo, G, K): output, and all gradients."""
    (kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w) = map(
        _axes, (kernel_size, stride, padding, dilation))
    half_w, half_h = dilation_w * (kernel_w - 1) // 2, dilation_h * (kernel_h - 1) // 2
    n, _, _, channels = value.shape
    rows, columns = _output_size(value.shape[1:3], kernel_size, stride, padding, dilation)
    groups = weight.shape[3]
    depth = channels // groups
    output = np.zeros((n, rows, columns, channels))
    grad_value, grad_offset, grad_weight = (np.zeros(a.shape) for a in (value, offset, weight))
    points = [(i, j) for i in range(kernel_w) for j in range(kernel_h)
              if not (remove_center and (i, j) == (kernel_w // 2, kernel_h // 2))]
    for image, row, column, group in product(*map(range, (n, rows, columns, groups))):
        owned = slice(group * depth, (group + 1) * depth)
        for k, (i, j) in enumerate(points):
            place = (image, row, column, group, k)
            dx, dy = map(float, offset[place])
            x = column * stride_w - pad_w + half_w + offset_scale * (i * dilation_w - half_w + dx)
            y = row * stride_h - pad_h + half_h + offset_scale * (j * dilation_h - half_h + dy)
            part, grad_x, grad_y, grad_weight[place] = _sample(
                value[image, :, :, owned], x, y, float(weight[place]),
                grad_output[image, row, column, owned], grad_value[image, :, :, owned])
            output[image, row, column, owned] += part
            grad_offset[place] = offset_scale * grad_x, offset_scale * grad_y
    return output, [grad_value, grad_offset, grad_weight]


def _attention(value: Array, shapes: Array, starts: Array, locations: Array, weights: Array,
               grad_output: Array) -> tuple[Array, list[Array]]:
    """Locations (N, Q, G, L, P, 2) and weights (N, Q, G, L, P): output, and all gradients."""
    n, queries, groups, levels, points, _ = locations.shape
    depth = value.shape[3]
    output = np.zeros((n, queries, groups, depth))
    grad_output = grad_output.reshape(output.shape)
    grad_value, grad_locations, grad_weights = (
        np.zeros(a.shape) for a in (value, locations, weights))
    for place in product(*map(range, (n, queries, groups, levels, points))):
        image, query, group, level, _ = place
        height, width = map(int, shapes[level])
        rows = slice(int(starts[level]), int(starts[level]) + height * width)
        pixels, grad_pixels = (a[image, rows, group].reshape(height, width, depth)
                               for a in (value, grad_value))
        x, y = map(float, locations[place])
        part, grad_x, grad_y, grad_weights[place] = _sample(
            pixels, x * width - 0.5, y * height - 0.5, float(weights[place]),
            grad_output[image, query, group], grad_pixels)
        output[image, query, group] += part
        grad_value[image, rows, group] = grad_pixels.reshape(height * width, depth)
        grad_locations[place] = width * grad_x, height * grad_y
    return output.reshape(n, queries, groups * depth), [grad_value, grad_locations, grad_weights]


def _softmax(logits: Array) -> Array:
    """Over the last axis."""
    if not logits.size:
        return logits
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _softmax_grad(weights: Array, grad: Array) -> Array:
    return weights * (grad - (weights * grad).sum(-1, keepdims=True))
