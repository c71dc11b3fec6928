"""ConvNeXt and isotropic ConvNeXt, against the published names."""
from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip('mmpretrain.models')

from mmpretrain.registry import MODELS as CLASSIFIERS

from mmdcn.analysis.complexity import build_on_meta
from mmdcn.checkpoints.converters import convert
from tests.mmcls_custom.zoo import downstream_shapes, manifest
from tests.mmdcn.checkpoints.converters.cases import (
    assert_fills_ours_both_ways,
    assert_values_survive,
    empty,
    shapes_of,
)

CONVNEXT = [('convnext', size) for size in ('t', 's', 'b', 'l', 'xl')]
ISOTROPIC = [('convnext_iso', size) for size in ('s', 'b', 'l')]


@pytest.mark.parametrize(('family', 'size'), CONVNEXT + ISOTROPIC)
def test_published_classifiers_fill_ours_both_ways(family, size):
    assert_fills_ours_both_ways(family, size, 'convnext')


def test_values_survive_the_way_there_and_back():
    assert_values_survive('convnext', manifest('convnext', 't')['classification']['state_dict'])


def paper_classifier(depths, widths):
    """Names and shapes of the published ConvNeXt with 1000 classes, from the paper's table."""
    shapes = {}

    def add(name, *weight):
        shapes.update({f'{name}.weight': list(weight), f'{name}.bias': [weight[0]]})
    add('downsample_layers.0.0', widths[0], 3, 4, 4)
    add('downsample_layers.0.1', widths[0])
    for stage, (depth, c) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            add(f'downsample_layers.{stage}.0', widths[stage - 1])
            add(f'downsample_layers.{stage}.1', c, widths[stage - 1], 2, 2)
        for block in (f'stages.{stage}.{i}.' for i in range(depth)):
            shapes[f'{block}gamma'] = [c]
            add(f'{block}dwconv', c, 1, 7, 7)
            add(f'{block}norm', c)
            add(f'{block}pwconv1', 4 * c, c)
            add(f'{block}pwconv2', c, 4 * c)
    add('norm', widths[-1])
    add('head', 1000, widths[-1])
    return shapes


@pytest.mark.parametrize(('arch', 'depths', 'width', 'millions'), [
    ('tiny', (3, 3, 9, 3), 96, 28.6), ('small', (3, 3, 27, 3), 96, 50.2),
    ('base', (3, 3, 27, 3), 128, 88.6), ('large', (3, 3, 27, 3), 192, 197.8),
    ('xlarge', (3, 3, 27, 3), 256, 350.2)])
def test_classifiers_of_the_paper_fill_ours_both_ways(arch, depths, width, millions):
    """As above, from the paper instead of reference data."""
    published = paper_classifier(depths, [width * 2**i for i in range(4)])
    assert sum(map(math.prod, published.values())) / 1e6 == pytest.approx(millions, abs=0.05)
    ours = build_on_meta(lambda: CLASSIFIERS.build(dict(
        type='ImageClassifier', backbone=dict(type='ConvNeXt', arch=arch),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=8 * width)))).state_dict()
    result = convert({'state_dict': empty(published)}, 'convnext')
    assert shapes_of(result.state_dict) == shapes_of(ours)
    back = convert({'state_dict': ours}, 'convnext', inverse=True)
    assert shapes_of(back.state_dict) == published


def test_values_of_a_paper_model_survive_the_way_there_and_back():
    assert_values_survive('convnext', paper_classifier((1, 1, 2, 1), (4, 8, 16, 32)))


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
