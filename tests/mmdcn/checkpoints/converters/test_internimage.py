"""InternImage and FlashInternImage: published names, and DCNv3 packed for DCNv4."""
from __future__ import annotations

import re

import pytest
import torch
from torch import nn

pytest.importorskip('mmpretrain.models')

from mmcls_custom.backbones import InternImage
from mmcls_custom.necks import InternImageClipNeck
from mmdcn.analysis.complexity import build_on_meta
from mmdcn.checkpoints import CheckpointError
from mmdcn.checkpoints.converters import Options, convert, detect
from mmdcn.checkpoints.converters.internimage import pack_offset_mask
from ops_dcn import DCNv3, DCNv4, dcnv3, dcnv4
from tests.configs import recipes
from tests.helpers import ROOT
from tests.mmcls_custom.plain_internimage import PUBLISHED, published_classifier
from tests.mmcls_custom.zoo import MANIFESTS, manifest
from tests.mmdcn.checkpoints.converters.cases import (
    CLASSIFIERS,
    assert_fills_ours_both_ways,
    assert_values_survive,
    empty,
    shapes_of,
)


@pytest.mark.parametrize(('family', 'size'), MANIFESTS)
def test_published_classifiers_fill_ours_both_ways(family, size):
    assert_fills_ours_both_ways(family, size, 'internimage')


@pytest.mark.parametrize(('family', 'arch'), [
    key for key in PUBLISHED if key[1] not in ('huge', 'giant')])
def test_classifiers_of_the_papers_fill_ours_both_ways(family, arch):
    """As above, from the sizes in the papers instead of reference data."""
    published = published_classifier(PUBLISHED[family, arch][0])
    last = PUBLISHED[family, arch][0]['channels'] * 8
    ours = build_on_meta(lambda: CLASSIFIERS.build(dict(
        type='ImageClassifier', backbone=dict(type=family, arch=arch, out_indices=(3,)),
        neck=dict(type='InternImageConvNeck', in_channels=last),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=int(1.5 * last))
    ))).state_dict()
    result = convert({'state_dict': empty(published)}, 'internimage')
    assert shapes_of(result.state_dict) == shapes_of(ours)
    assert not result.dropped
    back = convert({'state_dict': ours}, 'internimage', inverse=True)
    assert shapes_of(back.state_dict) == published


def test_values_of_a_paper_model_survive_the_way_there_and_back():
    facts = dict(channels=16, depths=(1, 2, 1, 1), groups=(1, 2, 4, 8), dw_kernel_size=3)
    assert_values_survive('internimage', published_classifier(facts))


def test_time_and_place_of_inaturalist_both_ways():
    published = dict(manifest('internimage', 'h')['classification']['state_dict'])
    published |= {'head.weight': [8142, 768], 'head.bias': [8142], 'meta_norm.weight': [128],
                  'meta_norm.bias': [128], 'meta_head.weight': [8142, 128],
                  'meta_head.bias': [8142]}
    for name, inputs in (('meta_head_1', 4), ('meta_head_2', 3)):
        published |= {f'{name}.0.weight': [64, inputs], f'{name}.3.w1.weight': [64, 64],
                      f'{name}.3.w2.weight': [64, 64]}
        published |= {f'{name}.{part}': [64] for part in (
            '0.bias', '2.weight', '2.bias', '3.w1.bias', '3.w2.bias', '3.norm_fn1.weight',
            '3.norm_fn1.bias', '3.norm_fn2.weight', '3.norm_fn2.bias')}
    config, = (ROOT / 'configs/inaturalist').glob('internimage-h_*.py')
    ours = recipes.build(config).state_dict()
    result = convert({'state_dict': empty(published)}, detect(empty(published))[0].name)
    assert shapes_of(result.state_dict) == shapes_of(ours)
    assert not result.dropped
    back = convert({'state_dict': ours}, 'internimage', inverse=True)
    assert shapes_of(back.state_dict) == published


def test_values_survive_the_way_there_and_back():
    published = manifest('internimage', 't')['classification']['state_dict']
    assert_values_survive('internimage', published)


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
