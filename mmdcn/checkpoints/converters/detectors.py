"""Detectors of mmdet 2.x and segmentors of mmseg 0.x -> mmdet 3.x and mmseg 1.x.

Backbone, neck and two-stage heads keep their names; the transformers of DINO and Mask2Former got
new ones. Mind the order of the decoder's attentions: in DINO self comes first, in Mask2Former
cross. ``ema_*`` are the buffers of an averaging hook, which has put the averages under the
ordinary names before saving.

DINO's decoder encodes the four numbers of a reference box before ``ref_point_head``. Published
files have C/4 frequencies for each, onedl-mmdetection 3.5 has C/2, of which every second is one of
those: the layer's weight tells which, (C, 2C) or (C, 4C), and is widened without loss.
"""
from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from mmdcn.checkpoints.converters.base import (
    Conversion,
    Converter,
    Options,
    Renames,
    State,
    keep_class_rows,
    rename_all,
)
from mmdcn.checkpoints.converters.convnext import BACKBONE_RULES

_DINO = 'bbox_head.transformer'
_LAYERS = (
    ('layers.{n}.ffns.0.{rest}', 'layers.{n}.ffn.{rest}'),
    ('layers.{n}.norms.{rest}', 'layers.{n}.norms.{rest}'),
)
_DETECTOR = (
    (f'{_DINO}.level_embeds', 'level_embed'),
    (f'{_DINO}.query_embed.{{rest}}', 'query_embedding.{rest}'),
    (f'{_DINO}.enc_output.{{rest}}', 'memory_trans_fc.{rest}'),
    (f'{_DINO}.enc_output_norm.{{rest}}', 'memory_trans_norm.{rest}'),
    ('bbox_head.label_embedding.{rest}', 'dn_query_generator.label_embedding.{rest}'),
    (f'{_DINO}.encoder.layers.{{n}}.attentions.0.{{rest}}', 'encoder.layers.{n}.self_attn.{rest}'),
    (f'{_DINO}.decoder.layers.{{n}}.attentions.0.{{rest}}', 'decoder.layers.{n}.self_attn.{rest}'),
    (f'{_DINO}.decoder.layers.{{n}}.attentions.1.{{rest}}', 'decoder.layers.{n}.cross_attn.{rest}'),
    (f'{_DINO}.decoder.norm.{{rest}}', 'decoder.norm.{rest}'),
    *((f'{_DINO}.decoder.ref_point_head.{2 * i}.{{rest}}',
       f'decoder.ref_point_head.layers.{i}.{{rest}}') for i in range(2)),
    *((f'{_DINO}.{part}.{old}', f'{part}.{new}')
      for part in ('encoder', 'decoder') for old, new in _LAYERS),
)


def _mask2former(head: str) -> tuple[tuple[str, str], ...]:
    pixel, decoder = f'{head}.pixel_decoder.encoder', f'{head}.transformer_decoder'
    attention = 'layers.{n}.attentions'
    return (
        (f'{pixel}.{attention}.0.{{rest}}', f'{pixel}.layers.{{n}}.self_attn.{{rest}}'),
        (f'{decoder}.{attention}.0.{{rest}}', f'{decoder}.layers.{{n}}.cross_attn.{{rest}}'),
        (f'{decoder}.{attention}.1.{{rest}}', f'{decoder}.layers.{{n}}.self_attn.{{rest}}'),
        *((f'{part}.{old}', f'{part}.{new}') for part in (pixel, decoder) for old, new in _LAYERS),
    )


_MMDET = Renames([*_DETECTOR, *_mask2former('panoptic_head'), *BACKBONE_RULES])
# The two backbones of CB-InternImage share one neck, which upstream keeps in a list.
_NECK_LIST = Renames([('neck.0.{rest}', 'neck.{rest}')])
_MMSEG = Renames([*_mask2former('decode_head'), *BACKBONE_RULES])
_REF_POINTS = 'decoder.ref_point_head.layers.0.weight'
_CLASS_LAYER = re.compile(r'(decode_head|auxiliary_head(\.\d+)?)\.conv_seg\.(weight|bias)')
_SPLIT = re.compile(r'(.*\.ffns\.0)\.fc([12])(?:_(\d+)\.(weight|bias)|_(bias))')


def _is_composite(keys: Iterable[str]) -> bool:
    return any(key.startswith('backbone.cb_modules.') for key in keys)


def merge_split_ffn(state: State) -> tuple[State, dict[str, list[str]]]:
    """Join feed-forward layers stored in chunks (InternImage-G DINO) into ordinary ones.

    Args:
        state: Tensors by name, with ``ffns.0.fc1_{i}.*``, ``ffns.0.fc2_{i}.weight`` and
            ``ffns.0.fc2_bias``.

    Returns:
        The state with ``ffns.0.layers.0.0.*`` and ``ffns.0.layers.1.*`` in their place, and the
        source names of each joined tensor.
    """
    chunks: dict[str, dict[int, str]] = {}
    for key in state:
        if match := _SPLIT.fullmatch(key):
            block, layer, index, kind, last_bias = match.groups()
            name = f'{block}.layers.{"0.0" if layer == "1" else "1"}.{kind or last_bias}'
            chunks.setdefault(name, {})[int(index or 0)] = key
    sources = {name: [found[i] for i in sorted(found)] for name, found in chunks.items()}
    split = {key for keys in sources.values() for key in keys}
    merged = {key: value for key, value in state.items() if key not in split}
    for name, keys in sources.items():
        parts = [state[key] for key in keys]
        # The first layer's chunks are output channels, the second's are its input channels.
        merged[name] = torch.cat(parts, dim=int(name.endswith('.layers.1.weight')))
    return merged, sources


def widen_ref_points(weight: Tensor) -> Tensor:
    """First layer of DINO's ``ref_point_head`` for an encoding with twice the frequencies.

    Args:
        weight: (C, 2C): four coordinates, each with C/4 frequencies as (sine, cosine).

    Returns:
        (C, 4C). Every second frequency of the finer series is one of the old series; the others
        get zeros, so the layer's output is the same.
    """
    wide = weight.new_zeros(len(weight), 4, weight.shape[1] // 8, 2, 2)
    wide[..., 0, :] = weight.unflatten(1, (4, -1, 2))
    return wide.flatten(1)


def narrow_ref_points(weight: Tensor) -> Tensor | None:
    """The (C, 2C) layer that :func:`widen_ref_points` makes this (C, 4C) one of, or None."""
    parts = weight.unflatten(1, (4, -1, 2, 2))
    # Without values (meta device) nothing tells a trained layer from a widened one.
    if not weight.is_meta and parts[..., 1, :].any():
        return None
    return parts[..., 0, :].flatten(1)


def _detector(state: State, options: Options) -> Conversion:
    merged, sources = merge_split_ffn(state)
    neck = _NECK_LIST if _is_composite(state) or 'neck.0.convs.0.conv.weight' in state else None
    result = rename_all(merged, lambda key: _MMDET(key) or (neck and neck(key)),
                        drop=lambda key: key.startswith('ema_'))
    for name, keys in sources.items():
        result.renamed.update(dict.fromkeys(keys, result.renamed.pop(name, name)))
    weight = result.state_dict.get(_REF_POINTS)
    if weight is not None and weight.shape[1] == 2 * len(weight):
        result.replace(_REF_POINTS, widen_ref_points(weight))
        result.notes.append(f'{_REF_POINTS} widened for onedl-mmdetection 3.5, which encodes '
                            'reference points with twice the frequencies: same output')
    if sources:
        result.notes.append(f'{len(sources)} tensors joined from chunked feed-forward layers')
    return result


def _old_detector(state: State, options: Options) -> Conversion:
    neck = _NECK_LIST if _is_composite(state) else None
    result = rename_all(state, lambda key: _MMDET.back(key) or (neck and neck.back(key)))
    weight = state.get(_REF_POINTS)
    if weight is not None and weight.shape[1] == 4 * len(weight):
        name, narrow = result.renamed[_REF_POINTS], narrow_ref_points(weight)
        if narrow is None:
            result.notes.append(f'{name} keeps its width, which mmdet 2.x does not have: it was '
                                'trained on, and uses frequencies that are new in this mmdet')
        else:
            result.replace(name, narrow)
    return result


def _segmentor(state: State, options: Options) -> Conversion:
    result = rename_all(state, _MMSEG, drop=lambda key: key.startswith('ema_'))
    return keep_class_rows(result, _CLASS_LAYER, options)


def _old_segmentor(state: State, options: Options) -> Conversion:
    return rename_all(state, _MMSEG.back)


FAMILIES = (
    Converter('mmdet2', 'detector of mmdet 2.x (Mask R-CNN, Cascade, DINO, CB-DINO, Mask2Former) '
              '-> mmdet 3.x', _detector, invert=_old_detector,
              marks=(r'^(roi_head|rpn_head|bbox_head|panoptic_head)\.',)),
    Converter('mmseg0', 'segmentor of mmseg 0.x (UperNet, SegFormer, Mask2Former) -> mmseg 1.x',
              _segmentor, invert=_old_segmentor, marks=(r'^decode_head\.',), uses=('class_rows',)),
)
