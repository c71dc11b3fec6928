"""Converters of convolutional families and of detectors, against the published names."""
from __future__ import annotations

import gzip
import json
import math
import re

import pytest
import torch
from torch import nn

pytest.importorskip('mmpretrain.models')

from mmpretrain.registry import MODELS as CLASSIFIERS

import mmcls_custom.backbones.convnext
import mmcls_custom.backbones.vision_transformer  # noqa: F401
from mmcls_custom.backbones import InternImage
from mmcls_custom.necks import InternImageClipNeck
from mmdcn.analysis.complexity import build_on_meta
from mmdcn.checkpoints import CheckpointError
from mmdcn.checkpoints.converters import FAMILIES, Options, convert, detect, tensors_of
from mmdcn.checkpoints.converters.base import Renames
from mmdcn.checkpoints.converters.internimage import pack_offset_mask
from ops_dcn import DCNv3, DCNv4, dcnv3, dcnv4
from tests.helpers import ROOT, reference_path
from tests.mmcls_custom.zoo import MANIFESTS, downstream_shapes, manifest

CONVNEXT = [('convnext', size) for size in ('t', 's', 'b', 'l', 'xl')]
ISOTROPIC = [('convnext_iso', size) for size in ('s', 'b', 'l')]
HEADS = ['mask_rcnn_internimage_t', 'cascade_internimage_l', 'dino_internimage_t',
         'cbdino_cbinternimage_h', 'mask_rcnn_flash_internimage_t', 'cascade_flash_internimage_l',
         'dino_flash_internimage_t', 'upernet_internimage_t_ade20k',
         'segformer_internimage_l_mapillary', 'mask2former_internimage_h_ade20k',
         'mask2former_flash_internimage_t_ade20k']


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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


@pytest.mark.parametrize(('family', 'size'), MANIFESTS + CONVNEXT + ISOTROPIC)
def test_published_classifiers_fill_ours_both_ways(family, size):
    published = manifest(family, size)['classification']
    ours = classifier(family, size, published['config']).state_dict()
    state = empty(published['state_dict'])
    name = 'convnext' if family.startswith('convnext') else 'internimage'
    assert detect(state)[0].name == name
    result = convert({'state_dict': state}, name)
    assert shapes_of(result.state_dict) == shapes_of(ours)
    assert not result.dropped
    back = convert({'state_dict': ours}, name, inverse=True)
    assert shapes_of(back.state_dict) == published['state_dict']


@pytest.mark.parametrize(('family', 'size'), CONVNEXT)
def test_published_dense_backbones(family, size):
    data = manifest(family, size)
    config = data['downstream_backbone']['config']
    model = build_on_meta(lambda: CLASSIFIERS.build(dict(
        type='ConvNeXt', arch=dict(depths=config['depths'], channels=config['dims']),
        out_indices=(0, 1, 2, 3), gap_before_final_norm=False)))
    expected = {f'backbone.{name}': shape for name, shape in shapes_of(model.state_dict()).items()}
    published = downstream_shapes(data)
    result = convert({'state_dict': empty(published)}, 'convnext')
    assert shapes_of(result.state_dict) == expected
    back = convert({'state_dict': result.state_dict}, 'convnext', inverse=True)
    assert shapes_of(back.state_dict) == published
    # In a detector's file the same names stand below backbone.
    detector = {f'backbone.{name}': value for name, value in empty(published).items()}
    detector['rpn_head.rpn_conv.weight'] = torch.empty(1)
    assert expected.keys() < convert({'state_dict': detector}, 'mmdet2').state_dict.keys()


def test_values_survive_the_way_there_and_back():
    for name, shapes in [('internimage', manifest('internimage', 't')['classification']),
                         ('convnext', manifest('convnext', 't')['classification'])]:
        state = {key: torch.randn(min(math.prod(shape), 7)) for key, shape in
                 shapes['state_dict'].items()}
        there = convert({'model': state}, name)
        back = convert({'state_dict': there.state_dict}, name, inverse=True).state_dict
        assert back.keys() == state.keys()
        assert all(torch.equal(back[key], state[key]) for key in state)


def test_exported_internimage():
    published = manifest('internimage', 's')['classification']['state_dict']
    export = {'model.' + re.sub(r'gamma([12])$', r'layer_scale\1', name): torch.empty(1)
              for name in published}
    assert sum('layer_scale1' in name for name in export) == 33
    assert detect(export)[0].name == 'internimage-hf'
    result = convert({'state_dict': export}, 'internimage-hf')
    expected = convert({'state_dict': dict.fromkeys(published, torch.empty(1))}, 'internimage')
    assert result.state_dict.keys() == expected.state_dict.keys()
    back = convert({'state_dict': result.state_dict}, 'internimage-hf', inverse=True)
    assert back.state_dict.keys() == export.keys()


def test_joint_pretraining_file():
    with torch.device('meta'):
        model = InternImage(channels=32, depths=(1, 1, 1, 1), groups=(2, 4, 8, 16))
        neck = InternImageClipNeck((128, 256), channels=32, num_heads=2, out_channels=48)
    wanted = {**{f'backbone.{k}': v for k, v in model.state_dict().items()},
              **{f'neck.{k}': v for k, v in neck.state_dict().items()}}
    joint = {'mask_token': torch.empty(1), 'decoder.weight': torch.empty(1)}
    for key, value in wanted.items():
        key = key.split('.', 1)[1]
        joint[key.replace('fc_norm.0', 'clip.classifier_ln') if key.startswith('fc_norm')
              else f'dcnv3.{key}'] = value
    joint |= {'clip.classifier.weight': torch.empty(7, 48), 'clip.classifier.bias': torch.empty(7)}
    assert detect(joint)[0].name == 'internimage'
    result = convert({'state_dict': joint}, 'internimage')
    assert result.state_dict.keys() == {*wanted, 'head.fc.weight', 'head.fc.bias'}
    assert result.dropped == ['mask_token', 'decoder.weight']


@pytest.mark.parametrize('model', HEADS)
def test_detector_heads_both_ways(model):
    table = heads()[model]
    shapes = {old: shape for old, (_, shape) in table.items()}
    if model.startswith('cb'):
        shapes |= {key: shape for key, (_, shape) in
                   heads()['cbinternimage_h_backbone_extra'].items()}
        shapes['backbone.cb_modules.0.patch_embed.conv1.weight'] = [1]
    state = empty(shapes)
    expected = {table[old][0] if old in table and table[old][0] != '=' else old: shape
                for old, shape in shapes.items()}
    family, _ = detect(state)
    assert family.name == ('mmseg0' if 'decode_head.conv_seg.weight' in state
                           or 'decode_head.cls_embed.weight' in state else 'mmdet2')
    result = convert({'state_dict': state}, family.name)
    assert shapes_of(result.state_dict) == expected
    assert len(result.renamed) == sum(new not in ('=', old) for old, (new, _) in table.items())
    back = convert({'state_dict': result.state_dict}, family.name, inverse=True)
    assert shapes_of(back.state_dict) == shapes


def test_averaging_buffers_are_dropped():
    state = {'roi_head.bbox_head.fc_cls.weight': torch.ones(2),
             'ema_roi_head_bbox_head_fc_cls_weight': torch.zeros(2)}
    result = convert({'state_dict': state}, 'mmdet2')
    assert list(result.state_dict) == ['roi_head.bbox_head.fc_cls.weight']
    assert result.dropped == ['ema_roi_head_bbox_head_fc_cls_weight']


def test_chunked_feed_forward_is_the_ordinary_one():
    shapes = {key: shape for key, (_, shape) in heads()['dino_internimage_g_ffn_example'].items()}
    state = filled(shapes)
    result = convert({'state_dict': state}, 'mmdet2')
    prefix = 'encoder.layers.0.ffn.layers'
    assert set(result.state_dict) == {f'{prefix}.{part}.{kind}' for part in ('0.0', '1')
                                      for kind in ('weight', 'bias')}
    assert set(result.renamed) == set(state)
    new = {key.removeprefix(f'{prefix}.'): value for key, value in result.state_dict.items()}
    old = {key.rsplit('.ffns.0.', 1)[1]: value for key, value in state.items()}
    x = torch.randn(5, 256, generator=torch.Generator().manual_seed(1))
    # The chunks split the hidden width: each goes through its own pair of layers.
    expected = old['fc2_bias'] + sum(
        nn.functional.linear(nn.functional.linear(
            x, old[f'fc1_{i}.weight'], old[f'fc1_{i}.bias']).relu(), old[f'fc2_{i}.weight'])
        for i in range(4))
    hidden = nn.functional.linear(x, new['0.0.weight'], new['0.0.bias']).relu()
    torch.testing.assert_close(nn.functional.linear(hidden, new['1.weight'], new['1.bias']),
                               expected, rtol=1e-4, atol=1e-2)


def test_own_mask2former_of_mmdet():
    name = 'panoptic_head.transformer_decoder.layers.3.attentions.{}.attn.in_proj_bias'
    result = convert({'state_dict': {name.format(0): torch.ones(3), name.format(1): torch.ones(3)}},
                     'mmdet2')
    assert [key.split('.')[4] for key in result.state_dict] == ['cross_attn', 'self_attn']


def test_class_rows():
    state = {'decode_head.conv_seg.weight': torch.arange(20.).view(5, 4, 1, 1),
             'decode_head.conv_seg.bias': torch.arange(5.),
             'auxiliary_head.conv_seg.bias': torch.arange(5.), 'neck.bias': torch.arange(5.)}
    result = convert({'state_dict': state}, 'mmseg0', Options(class_rows=(3, 0)))
    assert result.state_dict['decode_head.conv_seg.bias'].tolist() == [3, 0]
    assert result.state_dict['auxiliary_head.conv_seg.bias'].tolist() == [3, 0]
    assert len(result.resized) == 3
    head = {'stem.weight': torch.ones(1), 'blocks.0.dwconv.bias': torch.ones(1),
            'head.weight': torch.randn(7, 3), 'head.bias': torch.arange(7.)}
    small = convert({'state_dict': head}, 'convnext', Options(class_rows=(6, 2))).state_dict
    assert torch.equal(small['head.fc.weight'], head['head.weight'][[6, 2]])
    assert small['head.fc.bias'].tolist() == [6, 2]
    with pytest.raises(CheckpointError, match='got row 5, expected rows below 5'):
        convert({'state_dict': state}, 'mmseg0', Options(class_rows=(5,)))


@pytest.mark.parametrize('groups', [3, 6, 12, 24])
@pytest.mark.parametrize(('kernel', 'remove_center'), [(3, False), (3, True), (5, False)])
def test_packed_operator_equals_dcnv3(groups, kernel, remove_center):
    torch.manual_seed(groups)
    points = kernel**2 - remove_center
    options = dict(groups=groups, kernel_size=kernel, padding=kernel // 2, offset_scale=1.5,
                   remove_center=remove_center)
    old = DCNv3(48, group=groups, kernel_size=kernel, pad=kernel // 2, remove_center=remove_center)
    for layer in (old.offset, old.mask):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    result = convert({'state_dict': old.state_dict()}, 'dcnv3-to-dcnv4',
                     Options(kernel_points=points))
    new = DCNv4(48, group=groups, kernel_size=kernel, pad=kernel // 2, remove_center=remove_center)
    new.load_state_dict(result.state_dict)
    assert set(result.dropped) == {key for key in old.state_dict() if key.startswith('dw_conv')}
    value, features = torch.randn(2, 2, 7, 5, 48)
    mask = old.mask(features).unflatten(-1, (groups, points)).softmax(-1).flatten(-2)
    expected = dcnv3(value, old.offset(features), mask, **options)
    packed = new.offset_mask(features)
    torch.testing.assert_close(dcnv4(value, packed, softmax=True, **options), expected,
                               rtol=1e-4, atol=1e-4)
    padding = packed.shape[-1] - 3 * points * groups
    assert 0 <= padding < 8
    assert not packed[..., packed.shape[-1] - padding:].any()


@pytest.mark.parametrize('keep', [False, True])
def test_dcnv4_model_is_filled(keep):
    arch = dict(channels=32, depths=(1, 1, 2, 1), groups=(2, 4, 8, 16))
    old = InternImage(**arch)
    result = convert({'state_dict': old.state_dict()}, 'dcnv3-to-dcnv4',
                     Options(keep_depthwise=keep))
    new = InternImage(**arch, core_op='DCNv4', dw_kernel_size=3 if keep else None)
    new.load_state_dict(result.state_dict)
    dropped = {re.sub(r'.*dcn\.', '', key) for key in result.dropped}
    norm = {'dw_conv.1.1.weight', 'dw_conv.1.1.bias'}
    assert dropped == (norm if keep else norm | {'dw_conv.0.weight', 'dw_conv.0.bias'})
    assert len(result.dropped) == 5 * len(dropped)
    assert any('softmax' in note for note in result.notes)


def test_packing_refuses_other_kernels():
    with pytest.raises(CheckpointError, match='set `kernel_points`'):
        pack_offset_mask(torch.zeros(64, 4), torch.zeros(32, 4), points=9)
    with pytest.raises(CheckpointError, match='no DCNv3 layer found'):
        convert({'state_dict': DCNv4(16).state_dict()}, 'dcnv3-to-dcnv4')


def bevformer_state():
    state = {'pts_bbox_head.transformer.level_embeds': torch.randn(4, 8),
             'img_backbone.conv1.weight': torch.randn(2, 2)}
    for layer in range(6):
        for index in (0, 2, 4):
            rows = 10 if index == 4 else 8
            state[f'pts_bbox_head.reg_branches.{layer}.{index}.weight'] = torch.randn(rows, 8)
            state[f'pts_bbox_head.reg_branches.{layer}.{index}.bias'] = torch.randn(rows)
    return state


def test_bevformer_boxes_change_coordinates():
    state = bevformer_state()
    assert detect(state)[0].name == 'bevformer-v2'
    result = convert({'state_dict': state}, 'bevformer-v2')
    assert len(result.edited) == 12
    assert not result.renamed
    name = 'pts_bbox_head.reg_branches.5.4'
    x = torch.randn(50, 8)
    old, new = (nn.functional.linear(x, s[f'{name}.weight'], s[f'{name}.bias']).T
                for s in (state, result.state_dict))
    torch.testing.assert_close(new[2:4], old[[3, 2]])
    torch.testing.assert_close(new[[0, 1, 4, 5, 8, 9]], old[[0, 1, 4, 5, 8, 9]])
    turn = torch.atan2(new[6], new[7]) - (-torch.atan2(old[6], old[7]) - math.pi / 2)
    torch.testing.assert_close(turn.cos(), torch.ones(50))
    again = convert({'state_dict': result.state_dict, 'meta': {'converted_by': 'bevformer-v2'}},
                    'bevformer-v2', inverse=True)
    assert all(torch.equal(again.state_dict[key], value) for key, value in state.items())


def test_bevformer_is_converted_once():
    done = {'state_dict': bevformer_state(), 'meta': {'converted_by': 'bevformer-v2'}}
    with pytest.raises(CheckpointError, match='was converted by bevformer-v2 before'):
        convert(done, 'bevformer-v2')
    with pytest.raises(CheckpointError, match='was not converted by bevformer-v2 before'):
        convert({'state_dict': bevformer_state()}, 'bevformer-v2', inverse=True)


def test_wrappers_of_files():
    inner = {'a.weight': torch.ones(2)}
    for wrapped in ({'state_dict': inner}, {'state_dict': {'module': inner}}, {'module': inner},
                    {'model': inner}, inner, {'state_dict': {'module.a.weight': inner['a.weight']}},
                    {'state_dict': {**inner, 'epoch': 3}}):
        assert list(tensors_of(wrapped)) == ['a.weight']
    both = {'model': inner, 'model_ema': {'a.weight': torch.zeros(2)}}
    assert tensors_of(both)['a.weight'].sum() == 0
    assert tensors_of(both, averaged=False)['a.weight'].sum() == 2
    with pytest.raises(CheckpointError, match='averaged is not valid'):
        tensors_of({'model': inner}, averaged=False)
    with pytest.raises(CheckpointError, match='holds no tensors'):
        tensors_of({'state_dict': {'optimizer': {}}})


@pytest.mark.parametrize(('family', 'state', 'words'), [
    ('internimage', {'decode_head.x': 0}, 'has no keys like'),
    ('mmdet2', {'patch_embed.conv1.weight': 0}, 'expected a file of the family mmdet2'),
    ('internimage', {'patch_embed.conv1.weight': 0, 'levels.0.blocks.0.dcn.x': 0, 'odd': 0},
     'got odd, expected patch_embed'),
    ('convnext', {'stem.weight': 0, 'blocks.0.dwconv.weight': 0, 'odd': 0}, 'got odd'),
    ('convnext-v9', {'a': 0}, 'family is not valid: got .convnext-v9.'),
])
def test_other_files_are_refused(family, state, words):
    with pytest.raises(CheckpointError, match=words):
        convert({'state_dict': {key: torch.ones(1) for key in state}}, family)


def test_other_requests_are_refused():
    with pytest.raises(CheckpointError, match='class_rows is not valid'):
        convert({}, 'mae', Options(class_rows=(1,)))
    with pytest.raises(CheckpointError, match='inverse is not valid'):
        convert({}, 'mae', inverse=True)
    with pytest.raises(CheckpointError, match='no family has keys such as a, b'):
        detect({'a': torch.ones(1), 'b': torch.ones(1)})


def test_two_tensors_never_share_a_name():
    state = {'backbone.levels.0.blocks.0.dcn.x': torch.ones(1), 'patch_embed.conv1.bias':
             torch.ones(1), 'levels.0.blocks.0.dcn.x': torch.ones(1)}
    with pytest.raises(CheckpointError, match='both become backbone.levels'):
        convert({'state_dict': state}, 'internimage')


def test_renames_read_both_ways():
    rules = Renames([('a.{i}.b{n}.{rest}', 'x.{n}.{i}.{rest}'), ('a.{rest}', 'y.{rest}')])
    assert rules('a.3.b12.c.d') == 'x.12.3.c.d'
    assert rules.back('x.12.3.c.d') == 'a.3.b12.c.d'
    assert rules('a.b.c') == 'y.b.c'
    assert rules('b') is None


def test_model_zoo_names_families():
    rows = json.loads((ROOT / 'docs/model_zoo.json').read_text())['rows']
    named = {row['conversion'] for row in rows if 'conversion' in row}
    assert 'convnext' in named
    assert named <= {'none', *FAMILIES}


def test_every_family_is_described():
    assert all(name == family.name and ' -> ' in family.summary
               for name, family in FAMILIES.items())
