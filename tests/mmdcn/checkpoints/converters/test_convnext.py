"""ConvNeXt and isotropic ConvNeXt, against the published names."""
from __future__ import annotations

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
