"""Multi-scale deformable attention for every head, and the way to put it into a built model.

``MultiScaleDeformableAttention`` has the constructor, state-dict keys, initialisation and forward
arguments of the class of the same name in mmcv, around :func:`ops_dcn.ms_deform_attn`.
Source: Deformable DETR (arXiv:2010.04159), equations 2 and 3.

Three ways in:

- ``replace_deformable_attention(model)``, for models whose code names mmcv's class (Deformable
  DETR, DINO, Mask2Former in mmdet and mmseg);
- ``type='MMDCNDeformableAttention'`` in configs that name the attention by type, from every
  OpenMMLab scope. The name differs from mmcv's, because mmcv registers its own in the same
  registry, and whichever came second would fail or win by import order;
- the class itself.
"""
from __future__ import annotations

import functools
import math
import sys
import warnings
from typing import Any, NoReturn

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ops_dcn import ms_deform_attn

__all__ = ['MultiScaleDeformableAttention', 'replace_deformable_attention']

_MMCV_MODULE = 'mmcv.ops.multi_scale_deform_attn'
_ORDER = 'batch_first=True takes (N, Q, C), False takes (Q, N, C)'


@MODELS.register_module(name='MMDCNDeformableAttention')
class MultiScaleDeformableAttention(BaseModule):
    """Deformable attention over several feature levels, with projections and identity.

    Every query samples each level at P points per head around its reference point, adds the
    samples up with softmax weights over all L*P of them, and projects the result. Letters: N
    batch, Q queries, S rows of all levels together, C channels, G heads, L levels, P points.

    Locations are absolute, hence computed in float32 at least and never rounded to half precision,
    under autocast as well as in a ``.half()`` or ``.bfloat16()`` module (mmcv's CUDA kernel rounds
    them to the dtype of the value). The operator then runs in float32, softmax included, and its
    output returns to the dtype of the projected value. Reference points should be float32 even in
    a half module: what they have lost before the call cannot be won back.

    Outputs and gradients are mmcv's but for rounding, except where a sample lies exactly on a
    pixel center: the derivative jumps there, and this one takes the right-hand side
    (``docs/operators.md``, Edges), mmcv's PyTorch form either. Encoders start like that.

    Args:
        embed_dims: C, in and out.
        num_heads: G, a divisor of ``embed_dims`` and of the width of the value.
        num_levels: L.
        num_points: P, points per level and head.
        im2col_step: Kept for mmcv's signature; the operator has no such step, any batch is fine.
        dropout: Probability of zeroing an output element in training, before the identity is added.
        batch_first: Whether ``query``, ``value``, ``identity`` and ``query_pos`` are (N, Q, C)
            rather than (Q, N, C).
        norm_cfg: Kept for mmcv's signature; without effect there and here.
        init_cfg: As ``norm_cfg``: the layer always starts as :meth:`init_weights` says.
        value_proj_ratio: Width of the projected value over ``embed_dims``, rounded down.

    Raises:
        ValueError: An argument is not valid.
    """

    def __init__(self, embed_dims: int = 256, num_heads: int = 8, num_levels: int = 4,
                 num_points: int = 4, im2col_step: int = 64, dropout: float = 0.1,
                 batch_first: bool = False, norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None,
                 value_proj_ratio: float = 1.0) -> None:
        # Not super(): in a replaced layer the next class is mmcv's, whose arguments differ.
        BaseModule.__init__(self, init_cfg)
        for name, number in (('num_heads', num_heads), ('num_levels', num_levels),
                             ('num_points', num_points)):
            if number < 1:
                _refuse(name, number, 'at least 1', 'correct this argument')
        if embed_dims < 1 or embed_dims % num_heads:
            _refuse('embed_dims', embed_dims, f'a positive multiple of num_heads ({num_heads})',
                    'change either')
        value_dims = int(embed_dims * value_proj_ratio)
        if value_dims < 1 or value_dims % num_heads:
            _refuse('value_proj_ratio', f'{value_proj_ratio} ({value_dims} channels)',
                    f'a positive multiple of num_heads ({num_heads}) as embed_dims * '
                    'value_proj_ratio', 'change either')
        self.norm_cfg = norm_cfg
        self.dropout = nn.Dropout(dropout)
        self.batch_first = batch_first
        self.im2col_step = im2col_step
        self.embed_dims = embed_dims
        self.num_levels = num_levels
        self.num_heads = num_heads
        self.num_points = num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dims, samples * 2)
        self.attention_weights = nn.Linear(embed_dims, samples)
        self.value_proj = nn.Linear(embed_dims, value_dims)
        self.output_proj = nn.Linear(value_dims, embed_dims)
        self.init_weights()

    def init_weights(self) -> None:
        """Head g looks in direction 2*pi*g/G, point p at p + 1 pixels; equal attention.

        Offsets and weights do not depend on the query yet; the other projections are
        Xavier-uniform with zero bias.
        """
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        angle = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        pattern = direction[:, None, None, :] * distance[:, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(pattern.expand(-1, self.num_levels, -1, -1).flatten())
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        # mmengine's walk over a model must not start this layer a second time.
        self._is_init = True

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None,
                identity: Tensor | None = None, query_pos: Tensor | None = None,
                key_padding_mask: Tensor | None = None, reference_points: Tensor | None = None,
                spatial_shapes: Tensor | None = None, level_start_index: Tensor | None = None,
                **kwargs: Any) -> Tensor:
        """Attend from the queries to the levels.

        Args:
            query: (Q, N, C), or (N, Q, C) with ``batch_first``.
            key: Ignored: no weight comes from a comparison with keys.
            value: (S, N, C) or (N, S, C), the levels one after the other, each row by row;
                ``None`` means ``query`` without ``query_pos``.
            identity: Added to the output; ``None`` means ``query`` without ``query_pos``.
            query_pos: Added to ``query`` before offsets and weights are predicted.
            key_padding_mask: (N, S) bool, True for rows of ``value`` that count as zero.
            reference_points: (N, Q, L, 2) as (x, y) in 0..1 of the level, whose outer edges 0 and
                1 are, or (N, Q, L, 4) as (center x, center y, width, height): offsets count in
                pixels around points, and in ``1 / P`` of half a box in boxes. As in the mask, an
                axis of length 1 is repeated.
            spatial_shapes: (L, 2) int64, (height, width) of each level. The values are checked
                where the tensor is on the CPU.
            level_start_index: (L,) int64, row of ``value`` where each level begins; ``None`` means
                without gaps.
            **kwargs: Ignored: transformer layers pass all they have. ``residual`` is the old name
                of ``identity``.

        Returns:
            The shape of ``query``.

        Raises:
            ValueError: An argument has the wrong shape, dtype, device or value.
            ImportError: The compiled library is missing.
        """
        value = query if value is None else value
        identity = kwargs.get('residual') if identity is None else identity
        identity = query if identity is None else identity
        for name, tensor in (('query', query), ('value', value)):
            if tensor.dim() != 3 or tensor.shape[-1] != self.embed_dims:
                _refuse(f'{name}.shape', tuple(tensor.shape),
                        f'three axes, the last of embed_dims = {self.embed_dims}', _ORDER)
        if query_pos is not None:
            _expect_addable('query_pos', query_pos, query)
            query = query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        self._check(query, value, reference_points, spatial_shapes)
        if level_start_index is None:
            sizes = spatial_shapes.prod(1)
            level_start_index = sizes.cumsum(0) - sizes
        value = self._value(value, key_padding_mask)
        locations, weights = self._samples(query, reference_points, spatial_shapes)
        # Locations are in float32 or float64; a narrower value follows them.
        dtype = torch.promote_types(value.dtype, locations.dtype)
        out = ms_deform_attn(value.to(dtype), spatial_shapes, level_start_index,
                             locations.to(dtype), weights.to(dtype))
        out = self.output_proj(out.to(value.dtype))
        out = out if self.batch_first else out.transpose(0, 1)
        _expect_addable('identity', identity, out)
        return self.dropout(out) + identity

    def _value(self, value: Tensor, key_padding_mask: Tensor | None) -> Tensor:
        """Projected value (N, S, G, D), zero where the mask (N, S) is set."""
        rows = value.shape[:2]
        value = self.value_proj(value)
        if key_padding_mask is not None:
            if key_padding_mask.dtype != torch.bool:
                _refuse('key_padding_mask.dtype', key_padding_mask.dtype, 'torch.bool',
                        'convert with key_padding_mask.bool()')
            _expect_shape('key_padding_mask', key_padding_mask, rows,
                          'N, S, whether or not batch_first is set')
            value = torch.where(key_padding_mask[..., None], 0, value)  # masked_fill copies twice
        return value.unflatten(-1, (self.num_heads, -1))

    def _samples(self, query: Tensor, reference_points: Tensor,
                 spatial_shapes: Tensor) -> tuple[Tensor, Tensor]:
        """Locations (N, Q, G, L, P, 2) and weights (N, Q, G, L, P), in float32 or float64."""
        offsets = self.sampling_offsets(query)
        dtype = torch.promote_types(torch.float32, torch.promote_types(
            offsets.dtype, reference_points.dtype))
        center = self._per_point(reference_points[..., :2].to(dtype))
        if reference_points.shape[-1] == 2:
            unit = spatial_shapes.flip(-1).to(offsets.device, dtype).reciprocal()[None, None]
        else:
            unit = reference_points[..., 2:].to(dtype) * (0.5 / self.num_points)
        offsets = offsets.to(dtype).unflatten(-1, (self.num_heads, -1))
        locations = torch.addcmul(center, offsets, self._per_point(unit))
        logits = self.attention_weights(query).unflatten(-1, (self.num_heads, -1))
        weights = logits.softmax(-1, dtype=dtype)
        samples = (self.num_levels, self.num_points)
        return locations.unflatten(-1, (*samples, 2)), weights.unflatten(-1, samples)

    def _per_point(self, pairs: Tensor) -> Tensor:
        """(N, Q, L or 1, 2) repeated as (N, Q, 1, L*P*2), the order of a head's offsets.

        Rows of that length instead of broadcast pairs make the sum several times faster on a CPU.
        """
        pairs = pairs[:, :, :, None].expand(-1, -1, self.num_levels, self.num_points, -1)
        return pairs.flatten(2)[:, :, None]

    def _check(self, query: Tensor, value: Tensor, reference_points: Tensor | None,
               spatial_shapes: Tensor | None) -> None:
        """Query (N, Q, C), value (N, S, C), references and levels fit together, or an error."""
        if query.shape[0] != value.shape[0]:
            _refuse('value', f'a batch of {value.shape[0]}', f'{query.shape[0]} as in query',
                    _ORDER)
        for name, tensor in (('reference_points', reference_points),
                             ('spatial_shapes', spatial_shapes)):
            if not isinstance(tensor, Tensor):
                _refuse(name, type(tensor).__name__, 'a torch.Tensor', f'pass {name}=...')
        if reference_points.dim() != 4 or reference_points.shape[-1] not in (2, 4):
            _refuse('reference_points.shape', tuple(reference_points.shape),
                    'four axes, the last of 2 (x, y) or 4 (center x, center y, width, height)',
                    'its axes are (N, Q, L, 2 or 4)')
        _expect_shape('reference_points', reference_points,
                      (*query.shape[:2], self.num_levels, reference_points.shape[-1]),
                      'N, Q, L, 2 or 4, whether or not batch_first is set')
        if spatial_shapes.shape != (self.num_levels, 2):
            _refuse('spatial_shapes.shape', tuple(spatial_shapes.shape), (self.num_levels, 2),
                    'pass (height, width) of each of the num_levels')
        # Reading values stops tracers and makes a GPU wait.
        if (not torch.compiler.is_compiling() and type(spatial_shapes) is Tensor
                and spatial_shapes.device.type == 'cpu'):
            rows = int(spatial_shapes.prod(1).sum())
            if rows != value.shape[1]:
                _refuse('spatial_shapes', f'{spatial_shapes.tolist()} ({rows} rows)',
                        f'the {value.shape[1]} rows of value',
                        'rows are (height, width) of the levels that value holds')


def replace_deformable_attention(model: nn.Module) -> list[str]:
    """Let all deformable attention of mmcv in a built model run as the class of this module.

    Every instance of exactly mmcv's ``MultiScaleDeformableAttention`` changes its class in place,
    the model itself included. It stays the same object: parameters (so optimizers built before
    stay right), state-dict keys, hooks, training mode, dtype, device and every other reference
    to it are as before, and one layer under several names stays one. mmdet and mmseg look for
    mmcv's class to initialise it, hence what was replaced answers ``isinstance`` for both classes,
    and ``init_weights`` of the model does the same before and after. A second call finds nothing.

    Call it before ``torch.compile`` or wrapping in FSDP. Changes nothing where mmcv's operators
    have not been imported, as there can be no instance then, and does not import them.

    Args:
        model: A module with any modules inside.

    Returns:
        The name of each replaced module in ``model.named_modules()``, ``''`` for the model itself.

    Warns:
        UserWarning: Names what was left alone: instances of subclasses of mmcv's class, and those
            with a ``forward`` of their own, since that is what would have to be replaced.

    Raises:
        ValueError: ``model`` is not a module.
    """
    if not isinstance(model, nn.Module):
        _refuse('model', type(model).__name__, 'a torch.nn.Module', 'pass the built model')
    original = _mmcv_class()
    if original is None:
        return []
    replaced, left = [], []
    for name, module in model.named_modules():
        if isinstance(module, MultiScaleDeformableAttention) or not isinstance(module, original):
            continue
        if type(module) is not original or 'forward' in vars(module):
            left.append(f'{name or "the model itself"} ({type(module).__qualname__})')
            continue
        module.__class__ = _replacement_class(original)
        replaced.append(name)
    if left:
        warnings.warn('left as they are, because they are of a subclass of mmcv\'s class or have '
                      f'a forward of their own: {", ".join(left)}; derive them from '
                      'mmdcn.layers.MultiScaleDeformableAttention instead', stacklevel=2)
    return replaced


def _mmcv_class() -> type[nn.Module] | None:
    """mmcv's class, or None where it has not been imported."""
    return getattr(sys.modules.get(_MMCV_MODULE), 'MultiScaleDeformableAttention', None)


@functools.cache
def _replacement_class(original: type[nn.Module]) -> type[MultiScaleDeformableAttention]:
    """Ours, for instances that were built by ``original`` and must stay instances of it."""

    class ReplacedDeformableAttention(MultiScaleDeformableAttention, original):
        """What ``replace_deformable_attention`` turns mmcv's class into."""

        def __reduce_ex__(self, protocol: int) -> tuple:
            # The class is made at run time, so pickle cannot find it by its name.
            return (_new_replacement, (), *super().__reduce_ex__(protocol)[2:])

    return ReplacedDeformableAttention


def _new_replacement() -> MultiScaleDeformableAttention:
    """An empty instance for pickle and deepcopy; without mmcv's operators it is only ours."""
    original = _mmcv_class()
    cls = MultiScaleDeformableAttention if original is None else _replacement_class(original)
    return cls.__new__(cls)


def _refuse(name: str, got: object, expected: object, remedy: str) -> NoReturn:
    raise ValueError(f'{name} is not valid: got {got}, expected {expected}; {remedy}')


def _expect_shape(name: str, tensor: Tensor, expected: tuple[int, ...], meaning: str) -> None:
    """The expected shape, where an axis may have length 1 instead, or an error."""
    # Compared one by one, because torch.compile does not find a symbolic length in a tuple.
    if tensor.dim() != len(expected) or any(
            got != 1 and got != want for got, want in zip(tensor.shape, expected, strict=True)):
        _refuse(f'{name}.shape', tuple(tensor.shape), tuple(expected), f'its axes are ({meaning})')


def _expect_addable(name: str, tensor: Tensor, other: Tensor) -> None:
    """Shapes that broadcasting can join, or an error."""
    if isinstance(tensor, Tensor) and any(
            got != want and got != 1 and want != 1
            for got, want in zip(reversed(tensor.shape), reversed(other.shape), strict=False)):
        _refuse(f'{name}.shape', tuple(tensor.shape), f'{tuple(other.shape)} as query',
                'pass both in the same axis order')
