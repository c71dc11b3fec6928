"""What the tests of the converters share."""
from __future__ import annotations

import gzip
import json
import math

import torch
from mmpretrain.registry import MODELS as CLASSIFIERS

import mmcls_custom.backbones.convnext
import mmcls_custom.backbones.vision_transformer
import mmcls_custom.necks  # noqa: F401
from mmdcn.analysis.complexity import build_on_meta
from mmdcn.checkpoints.converters import convert, detect
from tests.helpers import reference_path
from tests.mmcls_custom.zoo import manifest

# Width, blocks and heads of the plain ViT.
C, DEPTH, HEADS = 64, 8, 4


def empty(shapes):
    return {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}


def filled(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def shapes_of(state):
    return {name: list(value.shape) for name, value in state.items()}


def heads():
    return json.loads(gzip.decompress(reference_path('zoo', 'detector_heads.json.gz').read_bytes()))


def classifier(family, size, config):
    """Our classifier on the meta device, as a config of mmpretrain would build it."""
    config = dict(config)
    if family == 'convnext':
        arch = dict(depths=config['depths'], channels=config['dims'])
        backbone, neck, width = dict(type='ConvNeXt', arch=arch), None, config['dims'][-1]
    elif family == 'convnext_iso':
        arch = {'s': 'small', 'b': 'base', 'l': 'large'}[size]
        backbone, neck = dict(type='IsotropicConvNeXt', arch=arch), None
        width = config['dim']
    else:
        clip = config.pop('use_clip_projector', False)
        kind = 'FlashInternImage' if family.startswith('flash') else 'InternImage'
        backbone = dict(type=kind, out_indices=(2, 3) if clip else (3,), **config)
        last = config['channels'] * 8
        neck = (dict(type='InternImageClipNeck', in_channels=(last // 2, last)) if clip
                else dict(type='InternImageConvNeck', in_channels=last))
        width = 768 if clip else int(1.5 * last)
    head = dict(type='LinearClsHead', num_classes=1000, in_channels=width)
    return build_on_meta(lambda: CLASSIFIERS.build(dict(
        type='ImageClassifier', backbone=backbone, neck=neck, head=head)))


def assert_fills_ours_both_ways(family, size, name):
    """A published classifier becomes all of ours, and ours all of the published one."""
    published = manifest(family, size)['classification']
    ours = classifier(family, size, published['config']).state_dict()
    state = empty(published['state_dict'])
    assert detect(state)[0].name == name
    result = convert({'state_dict': state}, name)
    assert shapes_of(result.state_dict) == shapes_of(ours)
    assert not result.dropped
    back = convert({'state_dict': ours}, name, inverse=True)
    assert shapes_of(back.state_dict) == published['state_dict']


def assert_values_survive(name, published):
    """Converting there and back leaves every value as it was."""
    state = {key: torch.randn(min(math.prod(shape), 7)) for key, shape in published.items()}
    there = convert({'model': state}, name)
    back = convert({'state_dict': there.state_dict}, name, inverse=True).state_dict
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def random(*shape):
    return torch.randn(shape)


def timm_blocks(qkv_bias=True):
    """Blocks of timm's ViT."""
    state = {}
    for i in range(DEPTH):
        for norm in ('norm1', 'norm2'):
            state |= {f'blocks.{i}.{norm}.weight': random(C), f'blocks.{i}.{norm}.bias': random(C)}
        for name, rows, columns in (('attn.qkv', 3 * C, C), ('attn.proj', C, C),
                                    ('mlp.fc1', 4 * C, C), ('mlp.fc2', C, 4 * C)):
            state[f'blocks.{i}.{name}.weight'] = random(rows, columns)
            if name != 'attn.qkv' or qkv_bias:
                state[f'blocks.{i}.{name}.bias'] = random(rows)
    return state


def timm(lead=1, side=14, patch=16):
    """ViT with ``lead`` tokens before the grid."""
    return {'cls_token': random(1, 1, C), 'pos_embed': random(1, lead + side**2, C),
            'patch_embed.proj.weight': random(C, 3, patch, patch),
            'patch_embed.proj.bias': random(C), **timm_blocks(),
            'norm.weight': random(C), 'norm.bias': random(C)}


def mae(full=False):
    decoder = {'mask_token': random(1, 1, 8), 'decoder_pos_embed': random(1, 197, 8),
               'decoder_embed.weight': random(8, C), 'decoder_blocks.0.norm1.weight': random(8)}
    return {'model': timm() | (decoder if full else {})}
