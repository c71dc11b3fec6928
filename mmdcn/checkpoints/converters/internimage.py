"""InternImage and FlashInternImage: classification files, exports, and DCNv3 -> DCNv4.

The names of the backbone are the published ones, so detection and segmentation backbones need no
conversion. A classifier puts ``backbone.``, ``neck.`` and ``head.fc.`` before the parts.
"""
from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from mmdcn.checkpoints.converters.base import (
    CLASSIFIER_HEAD,
    Conversion,
    Converter,
    Options,
    Renames,
    State,
    keep_class_rows,
    refuse_unknown,
    rename_all,
)
from mmdcn.checkpoints.loading import CheckpointError

_CLASSIFIER = Renames([
    ('head.{rest}', 'head.fc.{rest}'),
    # Of time and place, on iNaturalist 2018.
    *((f'{part}{{rest}}', f'head.{part}{{rest}}') for part in ('meta_head', 'meta_norm.')),
    *((f'{part}{{rest}}', f'neck.{part}{{rest}}')
      for part in ('conv_head.', 'dcnv3_head_x', 'clip_projector.', 'fc_norm.')),
    *((f'{part}.{{rest}}', f'backbone.{part}.{{rest}}') for part in ('patch_embed', 'levels')),
])
_EXPORT = Renames([
    ('model.{rest}.layer_scale{n}', '{rest}.gamma{n}'),
    ('model.{rest}', '{rest}'),
])
# Files of the joint pre-training put the backbone below dcnv3. and call the classifier otherwise.
_JOINT = Renames([
    ('clip.classifier_ln.{rest}', 'fc_norm.0.{rest}'),
    ('clip.classifier.{rest}', 'head.{rest}'),
    ('dcnv3.{rest}', '{rest}'),
])
_PARTS = ('patch_embed.*, levels.*, head.*, conv_head.*, dcnv3_head_x*, clip_projector.*, '
          'fc_norm.*, meta_head*, meta_norm.*')
_DCN = re.compile(r'(.*\.|)(?:offset|mask|input_proj|dw_conv\.[01](?:\.[01])?)\.(?:weight|bias)')
_PACKED_MULTIPLE = 8


def _to_classifier(state: State, options: Options) -> Conversion:
    joint = any('mask_token' in key for key in state)
    result, unknown = Conversion(), []
    for key, value in state.items():
        name = _JOINT(key) if joint else key.removeprefix('backbone.')
        name = name and _CLASSIFIER(name)
        if name is not None:
            result.put(name, value, key)
        elif joint:
            result.dropped.append(key)
        else:
            unknown.append(key)
    refuse_unknown('internimage', unknown, _PARTS)
    return keep_class_rows(result, CLASSIFIER_HEAD, options)


def _from_classifier(state: State, options: Options) -> Conversion:
    refuse_unknown('internimage, inverse', [key for key in state if _CLASSIFIER.back(key) is None],
                   'backbone.*, neck.*, head.fc.*')
    return rename_all(state, _CLASSIFIER.back)


def _from_export(state: State, options: Options) -> Conversion:
    names = {key: _EXPORT(key) or key for key in state}
    unknown = [key for key, name in names.items() if _CLASSIFIER(name) is None]
    refuse_unknown('internimage-hf', unknown, 'model. before the published names')
    result = rename_all(state, lambda key: _CLASSIFIER(names[key]))
    return keep_class_rows(result, CLASSIFIER_HEAD, options)


def _to_export(state: State, options: Options) -> Conversion:
    plain = _from_classifier(state, options)
    back = {key: re.sub(r'\.gamma([12])$', r'.layer_scale\1', plain.renamed[key]) for key in state}
    return rename_all(state, lambda key: f'model.{back[key]}')


def pack_offset_mask(offset: Tensor, mask: Tensor, points: int = 9) -> Tensor:
    """Rows of DCNv3's two linear layers in the order of DCNv4's one.

    Args:
        offset: Weight (G*K*2, C) or bias (G*K*2,), group-major, then point, then (x, y).
        mask: Weight (G*K, C) or bias (G*K,), group-major.
        points: K, the points of the kernel (one fewer without its centre).

    Returns:
        Per group 2K rows of offsets, then K rows of mask; zero rows up to a multiple of 8.

    Raises:
        CheckpointError: The sizes do not belong together.
    """
    groups, rest = divmod(len(mask), points)
    if rest or not groups or len(offset) != 2 * len(mask):
        raise CheckpointError(
            'offset, mask', f'got {len(offset)} and {len(mask)} rows',
            f'2 * K * groups and K * groups with K = {points}',
            'set `kernel_points` (8 for 3x3 without its centre)')
    packed = torch.cat([offset.unflatten(0, (groups, 2 * points)),
                        mask.unflatten(0, (groups, points))], 1).flatten(0, 1)
    padding = math.ceil(len(packed) / _PACKED_MULTIPLE) * _PACKED_MULTIPLE - len(packed)
    return torch.cat([packed, packed.new_zeros(padding, *packed.shape[1:])])


def _to_dcnv4(state: State, options: Options) -> Conversion:
    """Every DCNv3 layer, wherever in a model it stands."""
    result = Conversion()
    for key, value in state.items():
        prefix = next((match[1] for match in [_DCN.fullmatch(key)]
                       if match and f'{match[1]}mask.weight' in state
                       and f'{match[1]}offset.weight' in state), None)
        if prefix is None:
            result.put(key, value, key)
            continue
        part, kind = key[len(prefix):].rsplit('.', 1)
        if part == 'mask':  # packed with its offset
            continue
        if part == 'offset':
            mask = f'{prefix}mask.{kind}'
            result.put(f'{prefix}offset_mask.{kind}',
                       pack_offset_mask(value, state[mask], options.kernel_points), key, mask)
        elif part == 'input_proj':
            result.put(f'{prefix}value_proj.{kind}', value, key)
        elif part == 'dw_conv.0' and options.keep_depthwise:
            result.put(f'{prefix}offset_mask_dw.{kind}', value, key)
        else:
            result.dropped.append(key)
    if not any(name.endswith('offset_mask.weight') for name in result.renamed.values()):
        raise CheckpointError('checkpoint', 'no DCNv3 layer found', 'offset.*, mask.* and '
                              'input_proj.* side by side', 'choose another family')
    result.notes = [
        'DCNv3 normalises its mask with a softmax, which DCNv4 does without: a start for training, '
        'not the same function',
        'norm and activation of the depthwise branch have no place in DCNv4' if
        options.keep_depthwise else
        "DCNv3's depthwise branch (convolution, norm, activation) has no place in a DCNv4 without "
        'dw_kernel_size; `keep_depthwise=True` keeps the convolution for one that has it',
    ]
    return result


FAMILIES = (
    Converter('internimage', 'InternImage or FlashInternImage, published classifier or backbone -> '
              'classifier', _to_classifier, invert=_from_classifier,
              marks=(r'^(backbone\.|dcnv3\.|)patch_embed\.conv1\.',
                     r'^(backbone\.|dcnv3\.|)levels\.0\.blocks\.0\.dcn\.'),
              absent=(r'^(decode_head|roi_head|rpn_head|bbox_head|neck)\.', r'^head\.fc\.'),
              uses=('class_rows',)),
    Converter('internimage-hf', 'InternImage as exported for transformers -> classifier',
              _from_export, invert=_to_export,
              marks=(r'^model\.patch_embed\.conv1\.', r'^model\.levels\.0\.blocks\.0\.dcn\.'),
              uses=('class_rows',)),
    Converter('dcnv3-to-dcnv4', 'any model with DCNv3 layers -> the same with DCNv4, to start '
              'training from (never chosen on its own)', _to_dcnv4,
              uses=('kernel_points', 'keep_depthwise')),
)
