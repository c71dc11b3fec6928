"""Plain ViTs: MAE, MoCo v3, BEiT, DeiT/timm and mmpretrain -> ``PlainViT``.

All come to the names of timm, which ``PlainViT`` has. Class token, last norm and heads go; BEiT's
separate biases of q and v become one with zeros for k, which changes nothing, because a constant
added to all logits of a query cancels in the softmax.
"""
from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from mmdcn.checkpoints.converters.base import (
    Conversion,
    Converter,
    Options,
    Renames,
    State,
    refuse_unknown,
    rename_all,
)
from mmdcn.checkpoints.converters.tables import (
    resize_patches,
    resize_positions,
    resize_relative,
)
from mmdcn.checkpoints.loading import CheckpointError

# timm and mmpretrain.
_BACKBONE = (
    ('patch_embed.proj.{rest}', 'patch_embed.projection.{rest}'),
    ('blocks.{i}.norm{n}.{rest}', 'layers.{i}.ln{n}.{rest}'),
    ('blocks.{i}.mlp.fc1.{rest}', 'layers.{i}.ffn.layers.0.0.{rest}'),
    ('blocks.{i}.mlp.fc2.{rest}', 'layers.{i}.ffn.layers.1.{rest}'),
    ('blocks.{i}.ls1.gamma', 'layers.{i}.attn.gamma1.weight'),
    ('blocks.{i}.ls2.gamma', 'layers.{i}.ffn.gamma2.weight'),
    ('blocks.{i}.attn.{rest}', 'layers.{i}.attn.{rest}'),
)
_MMPRETRAIN = Renames([*_BACKBONE, ('blocks.{i}.gamma_{n}', 'layers.{i}.gamma_{n}'),
                       ('norm.{rest}', 'ln1.{rest}')])
_CLASSIFIER = Renames([
    *((old, f'backbone.{new}') for old, new in _BACKBONE),
    ('norm.{rest}', 'backbone.ln1.{rest}'),
    ('head.{rest}', 'head.layers.head.{rest}'),
    ('cls_token', 'backbone.cls_token'), ('pos_embed', 'backbone.pos_embed'),
])
_TABLE = 'relative_position_bias_table'
_PARTS = frozenset(
    f'{part}.{kind}' for kind in ('weight', 'bias')
    for part in ('norm1', 'norm2', 'attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2'))
_SCALES = frozenset({'gamma_1', 'gamma_2'})
_BLOCK = re.compile(r'blocks\.(\d+)\.(.+)')

# Name of a weight in timm, by the name in the file.
Naming = Callable[[str], 'str | None']


def _plain_vit(naming: Naming, state: State, options: Options) -> Conversion:
    """Convert the tensors that ``naming`` gives a name; the others are dropped."""
    result = Conversion()
    blocks: dict[int, dict[str, str]] = {}
    shared: str | None = None
    for key, value in state.items():
        name = naming(key)
        if name and (match := _BLOCK.fullmatch(name)):
            blocks.setdefault(int(match[1]), {})[match[2]] = key
        elif name in ('patch_embed.proj.weight', 'patch_embed.proj.bias', 'pos_embed'):
            result.put(name, value, key)
        elif name == f'rel_pos_bias.{_TABLE}':
            shared = key
        else:
            result.dropped.append(key)
    _put_blocks(state, blocks, result)
    if 'patch_embed.proj.weight' not in result.state_dict:
        raise CheckpointError('checkpoint', 'it has no patch embedding', 'patch_embed.proj.weight',
                              'choose another family')
    per_block = {i: names[f'attn.{_TABLE}'] for i, names in blocks.items()
                 if f'attn.{_TABLE}' in names}
    _put_tables(state, shared, per_block, len(blocks), options, result)
    weight = result.state_dict['patch_embed.proj.weight']
    result.replace('patch_embed.proj.weight', resize_patches(weight, options.patch_size))
    if 'pos_embed' in result.state_dict:
        result.replace('pos_embed',
                       resize_positions(result.state_dict['pos_embed'], options.pos_grid))
    elif options.pos_grid is not None:
        raise CheckpointError('pos_grid', 'the file has no pos_embed', remedy='drop it')
    return result


def _put_blocks(state: State, blocks: dict[int, dict[str, str]], result: Conversion) -> None:
    """Weights of all blocks, each complete, and nothing beside them."""
    for i in range(max(blocks, default=-1) + 1):
        names = {name.replace('ls1.gamma', 'gamma_1').replace('ls2.gamma', 'gamma_2'): key
                 for name, key in blocks.get(i, {}).items()}
        if 'attn.q_bias' in names and 'attn.v_bias' in names:
            sources = names.pop('attn.q_bias'), names.pop('attn.v_bias')
            result.put(f'blocks.{i}.attn.qkv.bias', fold_bias(*(state[k] for k in sources)),
                       *sources)
        else:
            _expect_part(i, 'attn.qkv.bias', names)
        for part in sorted(_PARTS - {'attn.qkv.bias'}):
            _expect_part(i, part, names)
        names.pop(f'attn.{_TABLE}', None)
        if (index := names.pop('attn.relative_position_index', None)) is not None:
            result.dropped.append(index)
        refuse_unknown('plain ViT', [key for name, key in names.items()
                                     if name not in _PARTS | _SCALES], 'the parts of a plain block')
        for name, key in names.items():
            result.put(f'blocks.{i}.{name}', state[key], key)
    scaled = sum(name.rsplit('.', 1)[-1] in _SCALES for name in result.state_dict)
    if not blocks or scaled not in (0, 2 * len(blocks)):
        raise CheckpointError(
            'checkpoint', f'got {len(blocks)} blocks with {scaled} layer scales',
            'none or two in each', 'choose another family')
    if scaled:
        result.notes.append('layer scale kept: build PlainViT with layer_scale set')


def _expect_part(block: int, part: str, names: dict[str, str]) -> None:
    if part not in names:
        raise CheckpointError('checkpoint', f'blocks.{block}.{part} is missing',
                              'every block whole', 'choose another family')


def fold_bias(q_bias: Tensor, v_bias: Tensor) -> Tensor:
    """BEiT's biases (C,) of q and v as one bias (3C,) of q, k and v; that of k is zero."""
    return torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])


def _put_tables(state: State, shared: str | None, per_block: dict[int, str], depth: int,
                options: Options, result: Conversion) -> None:
    """The two shared tables; tables of single blocks are averaged over the blocks they serve."""
    if shared is None and not per_block:
        return
    quarter = depth // 4
    last_of_quarter = {quarter * (i + 1) - 1 for i in range(4)}
    sizes = {'window_rel_pos': 2 * options.window - 1,
             'global_rel_pos': 2 * options.global_size - 1}
    for name, size in sizes.items():
        if shared is not None:
            sources = [shared]
        elif depth % 4 or len(per_block) != depth:
            raise CheckpointError('checkpoint', f'got {len(per_block)} tables in {depth} blocks',
                                  'one in each of a multiple of 4')
        else:
            sources = [key for i, key in per_block.items()
                       if (i in last_of_quarter) == (name == 'global_rel_pos')]
        first = state[sources[0]]
        table = first if len(sources) == 1 else torch.stack([state[k] for k in sources]).mean(0)
        name = f'{name}.{_TABLE}'
        result.put(name, table, *sources)
        result.replace(name, resize_relative(table, size, options.table_resize))
    if per_block:
        result.notes.append('tables of single blocks averaged: windowed blocks, global blocks')


def _named(prefix: str, rename: Naming = lambda key: key) -> Naming:
    """Names of the keys below a prefix."""
    return lambda key: rename(key.removeprefix(prefix)) if key.startswith(prefix) else None


def _from_timm(state: State, options: Options) -> Conversion:
    return _plain_vit(lambda key: key, state, options)


def _from_moco(state: State, options: Options) -> Conversion:
    return _plain_vit(_named('base_encoder.'), state, options)


def _from_mmpretrain(state: State, options: Options) -> Conversion:
    prefix = 'backbone.' if any(key.startswith('backbone.') for key in state) else ''
    return _plain_vit(_named(prefix, lambda key: _MMPRETRAIN.back(key) or key), state, options)


def _to_classifier(state: State, options: Options) -> Conversion:
    refuse_unknown('timm-classifier', [key for key in state if _CLASSIFIER(key) is None],
                   'the names of a ViT with one class token')
    return rename_all(state, _CLASSIFIER)


def _from_classifier(state: State, options: Options) -> Conversion:
    refuse_unknown('timm-classifier, inverse',
                   [key for key in state if _CLASSIFIER.back(key) is None],
                   "the names of mmpretrain's VisionTransformer classifier")
    return rename_all(state, _CLASSIFIER.back)


_VIT = r'^blocks\.0\.attn\.qkv\.weight$'
_GEOMETRY = ('patch_size', 'pos_grid')
_TABLES = (*_GEOMETRY, 'window', 'global_size', 'table_resize')

FAMILIES = (
    Converter('moco-v3', 'MoCo v3 ViT (its base encoder) -> PlainViT', _from_moco,
              marks=(r'^base_encoder\.blocks\.0\.',), uses=_GEOMETRY),
    Converter('beit', 'BEiT, self-supervised (one shared table, pt22k) -> PlainViT', _from_timm,
              marks=(_VIT, rf'^rel_pos_bias\.{_TABLE}$'), uses=_TABLES),
    Converter('beit-ft', 'BEiT, fine-tuned (a table in each block) -> PlainViT', _from_timm,
              marks=(_VIT, rf'^blocks\.0\.attn\.{_TABLE}$'), uses=_TABLES),
    Converter('timm', 'DeiT (also distilled) or ViT of timm -> PlainViT', _from_timm,
              marks=(_VIT, r'^pos_embed$', r'^head\.'), absent=(_TABLE,), uses=_GEOMETRY),
    Converter('mae', 'MAE (pre-trained, also with decoder) -> PlainViT', _from_timm,
              marks=(_VIT, r'^pos_embed$'), absent=(_TABLE,), uses=_GEOMETRY),
    Converter('mmpretrain', 'ViT, MAE, MoCo v3 or BEiT of mmpretrain -> PlainViT',
              _from_mmpretrain, marks=(r'^(backbone\.)?layers\.0\.ln1\.',), uses=_TABLES),
    Converter('timm-classifier', "DeiT or ViT of timm -> mmpretrain's VisionTransformer classifier "
              '(never chosen on its own)', _to_classifier, invert=_from_classifier),
)
