"""The operators as functions: arguments are checked, then the compiled kernel of the device runs.

Every function takes float64, float32, float16 or bfloat16 tensors, all of one dtype and on one
device, of any memory layout; half precisions are accumulated in float32. Under autocast tensors
of different dtypes are converted to the widest of them. Gradients reach every floating input
(right-hand derivative where a sample lies exactly on a grid line); a second derivative raises.
For a given thread count results are reproducible bit for bit on the CPU, and in the forward an
image's result does not depend on the rest of the batch. On CUDA gradients are reproducible under
``torch.use_deterministic_algorithms``. Semantics: ``docs/operators.md``.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from ops_dcn import _autograd
from ops_dcn._checks import (
    LARGEST,
    expect_axes,
    expect_flag,
    expect_int,
    expect_scale,
    refuse,
)
from ops_dcn.reference import IntPair, output_size

__all__ = ['dcnv3', 'dcnv4', 'flash_deform_attn', 'ms_deform_attn']

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_MOST_PIXELS = 2**30 - 1


def dcnv3(value: Tensor, offset: Tensor, mask: Tensor, *, groups: int, kernel_size: IntPair = 3,
          stride: IntPair = 1, padding: IntPair = 1, dilation: IntPair = 1,
          offset_scale: float = 1.0, remove_center: bool = False) -> Tensor:
    """Core operator of DCNv3 (InternImage): masked sum over deformed kernel points, per group.

    There is no weight and no mixing of channels; the channels of a group share its offsets and
    mask. K is ``kernel_h * kernel_w``, one less with ``remove_center``; points are numbered column
    by column (the horizontal index is the outer loop).

    Args:
        value: (N, H, W, C); group g owns channels ``g*C/G`` to ``(g+1)*C/G - 1``.
        offset: (N, Ho, Wo, G*K*2), per group and point (x, y), in input pixels before scaling.
        mask: (N, Ho, Wo, G*K), used as given (no softmax).
        groups: G, a divisor of C.
        kernel_size: Int or (h, w), as the next three.
        stride: Step of the output grid in input pixels.
        padding: Zero padding on each side, in input pixels; not scaled by ``offset_scale``.
        dilation: Spacing of the kernel points in input pixels.
        offset_scale: Factor on both the regular grid and the offsets, about the kernel's center.
        remove_center: Drop the center point; the kernel must be odd on both axes.

    Returns:
        (N, Ho, Wo, C), with Ho and Wo by ordinary convolution arithmetic.

    Raises:
        ValueError: An argument has the wrong shape, dtype, device or value.
        ImportError: The compiled library is missing.
    """
    dtype = _expect_tensors((('value', value, 4), ('offset', offset, 4), ('mask', mask, 4)))
    geometry = _geometry(value, groups, kernel_size, stride, padding, dilation, remove_center)
    size, points = _output(value, geometry)
    _expect_shape('offset', offset, (*size, groups * points * 2), 'N, Ho, Wo, groups * K * 2')
    _expect_shape('mask', mask, (*size, groups * points), 'N, Ho, Wo, groups * K')
    scale = expect_scale(offset_scale, dtype)
    return _autograd.function('dcnv3').apply(*_dense(dtype, value, offset, mask), geometry, scale)


def dcnv4(value: Tensor, offset_mask: Tensor, *, groups: int, kernel_size: IntPair = 3,
          stride: IntPair = 1, padding: IntPair = 1, dilation: IntPair = 1,
          offset_scale: float = 1.0, remove_center: bool = False, softmax: bool = False) -> Tensor:
    """Core operator of DCNv4 (FlashInternImage): DCNv3 with offsets and mask in one tensor.

    Args:
        value: (N, H, W, C), channels as in :func:`dcnv3`.
        offset_mask: (N, Ho, Wo, E). Group g owns the 3K entries from ``3*K*g``: K pairs (x, y),
            then K mask values. E is ``3*K*groups``, or that rounded up to a multiple of 8 (the
            layout of published weights); the entries at the end are ignored, their gradient is 0.
        groups: As in :func:`dcnv3`, like the remaining arguments.
        kernel_size: Int or (h, w).
        stride: Int or (h, w).
        padding: Int or (h, w).
        dilation: Int or (h, w).
        offset_scale: Factor on the regular grid and the offsets.
        remove_center: Drop the center point.
        softmax: Normalise the mask over the K points of each group. The published DCNv4 does not.

    Returns:
        (N, Ho, Wo, C).

    Raises:
        ValueError: An argument has the wrong shape, dtype, device or value.
        ImportError: The compiled library is missing.
    """
    dtype = _expect_tensors((('value', value, 4), ('offset_mask', offset_mask, 4)))
    geometry = _geometry(value, groups, kernel_size, stride, padding, dilation, remove_center)
    size, points = _output(value, geometry)
    used = 3 * groups * points
    padded = math.ceil(used / 8) * 8
    if offset_mask.shape[3] not in (used, padded):
        refuse('offset_mask.shape[3]', offset_mask.shape[3],
                f'{padded} or {used} (3 * groups * K, with or without padding to a multiple of 8)',
                'check groups, kernel_size and remove_center')
    _expect_shape('offset_mask', offset_mask, (*size, offset_mask.shape[3]), 'N, Ho, Wo, E')
    scale, softmax = expect_scale(offset_scale, dtype), expect_flag('softmax', softmax)
    # Copied by the kernel's host code where it cannot read their strides.
    value, offset_mask = _of_dtype(dtype, value, offset_mask)
    return _autograd.function('dcnv4').apply(value, offset_mask, geometry, scale, softmax)


def ms_deform_attn(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor,
                   sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    """Multi-scale deformable attention (Deformable DETR) with normalised attention weights.

    Args:
        value: (N, S, G, D), the levels one after the other, each row by row.
        spatial_shapes: (L, 2) int64, height and width of each level. The values are checked where
            the tensor is on the CPU.
        level_start_index: (L,) int64, row of ``value`` where each level begins.
        sampling_locations: (N, Q, G, L, P, 2), pairs (x, y); 0 and 1 are the outer edges of the
            level (pixel = x * width - 0.5).
        attention_weights: (N, Q, G, L, P), used as given.

    Returns:
        (N, Q, G*D).

    Raises:
        ValueError: An argument has the wrong shape, dtype, device or value.
        ImportError: The compiled library is missing.
    """
    dtype = _expect_tensors(
        (('value', value, 4), ('sampling_locations', sampling_locations, 6),
         ('attention_weights', attention_weights, 5)))
    _check_levels(value, spatial_shapes, level_start_index)
    n, _, groups, _ = value.shape
    q, points, count = *sampling_locations.shape[1:5:3], spatial_shapes.shape[0]
    if points < 1:
        refuse('sampling_locations.shape[4]', points, 'at least 1 point per level',
                'pass at least one location')
    _expect_sizes('sampling_locations.shape', sampling_locations, (q, groups, count * points))
    _expect_shape('sampling_locations', sampling_locations, (n, q, groups, count, points, 2),
                  'N, Q, G, L, P, 2')
    _expect_shape('attention_weights', attention_weights, (n, q, groups, count, points),
                  'N, Q, G, L, P')
    levels = _levels(value, spatial_shapes, level_start_index)
    value, *points = _dense(dtype, value, sampling_locations, attention_weights)
    return _autograd.function('ms_deform_attn').apply(value, *levels, *points)


def flash_deform_attn(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor,
                      sampling_loc_attn: Tensor, *, num_points: int) -> Tensor:
    """Multi-scale deformable attention with locations and attention logits in one tensor.

    Args:
        value: (N, S, G, D), as in :func:`ms_deform_attn`.
        spatial_shapes: (L, 2) int64, height and width of each level.
        level_start_index: (L,) int64, row of ``value`` where each level begins.
        sampling_loc_attn: (N, Q, G, 3*L*P); per head L*P pairs (x, y), then L*P logits, both with
            the level as the outer index. The operator takes the softmax over all L*P logits.
        num_points: P, points per level.

    Returns:
        (N, Q, G*D).

    Raises:
        ValueError: An argument has the wrong shape, dtype, device or value.
        ImportError: The compiled library is missing.
    """
    packed = sampling_loc_attn
    dtype = _expect_tensors((('value', value, 4), ('sampling_loc_attn', packed, 4)))
    _check_levels(value, spatial_shapes, level_start_index)
    expect_int('num_points', num_points, 1)
    n, _, groups, _ = value.shape
    _expect_sizes('sampling_loc_attn.shape', packed, (packed.shape[1], groups,
                                                      spatial_shapes.shape[0] * num_points))
    _expect_shape('sampling_loc_attn', packed,
                  (n, packed.shape[1], groups, 3 * spatial_shapes.shape[0] * num_points),
                  'N, Q, G, 3 * L * num_points')
    levels = _levels(value, spatial_shapes, level_start_index)
    value, packed = _dense(dtype, value, packed)
    return _autograd.function('flash_deform_attn').apply(value, *levels, packed, num_points)


def _expect_tensors(arguments: tuple[tuple[str, Tensor, int], ...]) -> torch.dtype:
    """The dtype to compute with, of tensors (name, tensor, rank) of one dtype and device."""
    for name, tensor, rank in arguments:
        if not isinstance(tensor, Tensor):
            refuse(name, type(tensor).__name__, 'a torch.Tensor', 'convert it')
        _expect_strided(name, tensor)
        if tensor.dim() != rank:
            refuse(f'{name}.dim()', f'{tensor.dim()} (shape {tuple(tensor.shape)})', str(rank),
                    'see the shapes in the docstring')
        if tensor.dtype not in _FLOATS:
            refuse(f'{name}.dtype', tensor.dtype, 'float64, float32, float16 or bfloat16',
                    f'convert with {name}.float()')
    first = arguments[0][1]
    dtype = first.dtype
    for name, tensor, _ in arguments[1:]:
        if tensor.device != first.device:
            refuse(f'{name}.device', tensor.device, f'{first.device} as {arguments[0][0]}',
                    f'move it with {name}.to({arguments[0][0]}.device)')
    for name, tensor, _ in arguments[1:]:
        if tensor.dtype != first.dtype:
            if _autocast(first.device.type):
                # As autocast does for operators of several tensors, grid_sample among them.
                dtype = torch.promote_types(dtype, tensor.dtype)
                continue
            refuse(f'{name}.dtype', tensor.dtype, f'{first.dtype} as {arguments[0][0]}',
                    f'convert with {name}.to({arguments[0][0]}.dtype)')
    return dtype


def _autocast(device_type: str) -> bool:
    return (torch.amp.is_autocast_available(device_type)
            and torch.is_autocast_enabled(device_type))


def _of_dtype(dtype: torch.dtype, *tensors: Tensor) -> list[Tensor]:
    """The tensors in the dtype to compute with; after all checks, as copies take memory."""
    return [tensor if tensor.dtype == dtype else tensor.to(dtype) for tensor in tensors]


def _dense(dtype: torch.dtype, *tensors: Tensor) -> list[Tensor]:
    """The same, contiguous."""
    return [tensor.contiguous() for tensor in _of_dtype(dtype, *tensors)]


def _expect_shape(name: str, tensor: Tensor, expected: tuple[int, ...], meaning: str) -> None:
    for axis, (got, want) in enumerate(zip(tensor.shape, expected, strict=True)):
        if got != want:
            refuse(f'{name}.shape[{axis}]', f'{got} (shape {tuple(tensor.shape)})',
                    f'{want} (shape {tuple(expected)})', f'its axes are ({meaning})')


def _expect_strided(name: str, tensor: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = 'nested tensor' if tensor.is_nested else f'tensor of layout {tensor.layout}'
        refuse(name, f'a {kind}', 'a dense tensor (torch.strided)', 'convert it (to_dense())')


def _expect_sizes(name: str, tensor: Tensor, sizes: tuple[int, ...]) -> None:
    """Refuse sizes, which empty tensors can have, whose products leave 64 bits."""
    # Under a compiler sizes may be symbols, which a comparison would bind.
    if not torch.compiler.is_compiling() and max(sizes) > LARGEST:
        refuse(name, tuple(tensor.shape), f'sizes and numbers of points of at most {LARGEST}',
                'cut it into parts')


def _geometry(value: Tensor, groups: int, kernel_size: IntPair, stride: IntPair, padding: IntPair,
              dilation: IntPair, remove_center: bool) -> list[int]:
    """The raw operators' ten integers, checked against each other and the channels of ``value``."""
    kernel = expect_axes('kernel_size', kernel_size, 1)
    remove_center = expect_flag('remove_center', remove_center)
    geometry = [*kernel, *expect_axes('stride', stride, 1), *expect_axes('padding', padding, 0),
                *expect_axes('dilation', dilation, 1), groups, int(remove_center)]
    expect_int('groups', groups, 1)
    channels = value.shape[3]
    _expect_sizes('value.shape', value, (channels,))
    _expect_pixels(value, value.shape[1], value.shape[2])
    if kernel[0] * kernel[1] * groups > LARGEST:
        refuse('kernel_size', f'{kernel} with {groups} groups', f'at most {LARGEST} kernel '
                'points of all groups', 'use a smaller kernel')
    if channels % groups or channels == 0:
        refuse('value.shape[3]', channels, f'a positive multiple of groups ({groups})',
                'choose groups that divide the channels')
    if remove_center and (kernel[0] % 2 == 0 or kernel[1] % 2 == 0 or kernel == (1, 1)):
        refuse('remove_center', f'{remove_center!r} with kernel_size {kernel}',
                'an odd kernel larger than 1x1', 'use remove_center=False or an odd kernel')
    return geometry


def _output(value: Tensor, geometry: list[int]) -> tuple[tuple[int, int, int], int]:
    """Batch, height and width of the output, and the number of kernel points."""
    size = [output_size(value.shape[1 + axis], *geometry[axis:8:2]) for axis in (0, 1)]
    for axis, length in enumerate(size):
        if value.shape[1 + axis] < 1 or length < 1:
            refuse(f'value.shape[{1 + axis}]', value.shape[1 + axis],
                    'at least one pixel, and with its padding no less than the dilated kernel',
                    'use a larger input, more padding or a smaller kernel')
    if not torch.compiler.is_compiling() and size[0] * size[1] > LARGEST:
        refuse('padding', f'an output of {size[0]}x{size[1]}', f'at most {LARGEST} pixels',
                'use less padding or a larger stride')
    return (value.shape[0], *size), geometry[0] * geometry[1] - geometry[9]


def _expect_pixels(value: Tensor, height: int, width: int) -> None:
    """The kernels keep the index of a pixel in 32 bits."""
    if not torch.compiler.is_compiling() and (
            max(height, width) > _MOST_PIXELS or height * width > _MOST_PIXELS):
        refuse('value.shape', tuple(value.shape), f'at most {_MOST_PIXELS} pixels per image',
                'cut it into parts')


def _levels(value: Tensor, *tensors: Tensor) -> list[Tensor]:
    """The level tensors where the kernels read them: on the device of ``value``."""
    return [tensor.to(value.device).contiguous() for tensor in tensors]


def _check_levels(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor) -> None:
    """Levels must be int64 tensors and lie inside ``value``."""
    if value.shape[2] < 1 or value.shape[3] < 1:
        refuse('value.shape', tuple(value.shape), '(N, S, G, D) with G and D of at least 1',
                'check the number of heads')
    _expect_sizes('value.shape', value, (value.shape[2] * value.shape[3],))
    _expect_pixels(value, value.shape[1], 1)
    for name, tensor, rank in (('spatial_shapes', spatial_shapes, 2),
                               ('level_start_index', level_start_index, 1)):
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.int64:
            refuse(name, getattr(tensor, 'dtype', type(tensor).__name__), 'an int64 tensor',
                    f'use torch.as_tensor({name}, dtype=torch.int64)')
        _expect_strided(name, tensor)
        if tensor.dim() != rank:
            refuse(f'{name}.dim()', f'{tensor.dim()} (shape {tuple(tensor.shape)})', str(rank),
                    'see the shapes in the docstring')
        if tensor.device not in (value.device, torch.device('cpu')):
            refuse(f'{name}.device', tensor.device, f'{value.device} as value',
                    f'move it with {name}.to(value.device)')
    levels = spatial_shapes.shape[0]
    if levels < 1:
        refuse('spatial_shapes.shape[0]', levels, 'at least 1', 'pass at least one level')
    _expect_shape('spatial_shapes', spatial_shapes, (levels, 2), 'L, (height, width)')
    _expect_shape('level_start_index', level_start_index, (levels,), 'L')
    # Reading values stops tracers and makes a GPU wait; plain CPU tensors only.
    if torch.compiler.is_compiling() or any(
            type(tensor) is not Tensor or is_functorch_wrapped_tensor(tensor)
            for tensor in (spatial_shapes, level_start_index)):
        return
    if spatial_shapes.device.type == level_start_index.device.type == 'cpu':
        for level, ((height, width), start) in enumerate(
                zip(spatial_shapes.tolist(), level_start_index.tolist(), strict=True)):
            if min(height, width) < 1 or start < 0 or start + height * width > value.shape[1]:
                refuse('spatial_shapes', f'level {level} of {height}x{width} from row {start}',
                        f'levels inside the {value.shape[1]} rows of value',
                        'rows are (height, width); starts are their running sum')
