"""Converted detectors and segmentors equal the models that mmdet and mmseg build."""
from __future__ import annotations

import gzip
import json

import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.utils import import_modules_from_strings

from mmdcn.analysis.complexity import build_on_meta
from mmdcn.apis.inference import task_scope
from mmdcn.checkpoints import CheckpointError
from mmdcn.checkpoints.converters import Options, convert, detect
from mmdcn.checkpoints.converters.detectors import widen_ref_points
from tests.helpers import ROOT, reference_path
from tests.mmcls_custom.zoo import downstream_shapes, manifest

BACKBONE = dict(_delete_=True, type='InternImage', arch='tiny')
WIDTHS = [64, 128, 256, 512]
CASES = {
    'mask_rcnn_internimage_t': f'{ROOT}/configs/coco/mask-rcnn_internimage-t_fpn_8xb2-1x_coco.py',
    'mask_rcnn_flash_internimage_t':
        f'{ROOT}/configs/coco/mask-rcnn_flash-internimage-t_fpn_8xb2-1x_coco.py',
    'dino_internimage_t': 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'upernet_internimage_t_ade20k': 'mmseg::_base_/models/upernet_r50.py',
    'mask2former_flash_internimage_t_ade20k':
        'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
}
CHANGES = {
    'dino_internimage_t': dict(backbone=dict(BACKBONE, out_indices=(1, 2, 3)),
                               neck=dict(in_channels=WIDTHS[1:])),
    'upernet_internimage_t_ade20k': dict(
        pretrained=None, backbone=BACKBONE, auxiliary_head=dict(in_channels=256, num_classes=150),
        decode_head=dict(in_channels=WIDTHS, num_classes=150)),
    'mask2former_flash_internimage_t_ade20k': dict(
        backbone=dict(BACKBONE, type='FlashInternImage'), decode_head=dict(in_channels=WIDTHS)),
}


def published_shapes(name):
    table = json.loads(gzip.decompress(
        reference_path('zoo', 'detector_heads.json.gz').read_bytes()))[name]
    family = 'flash_internimage' if 'flash' in name else 'internimage'
    return {**{key: shape for key, (_, shape) in table.items()},
            **{f'backbone.{key}': shape
               for key, shape in downstream_shapes(manifest(family, 't')).items()}}


@pytest.mark.parametrize('name', CASES)
def test_published_detectors_fill_the_installed_ones(name, tmp_path):
    shapes = published_shapes(name)
    path = tmp_path / 'config.py'
    path.write_text(f'_base_ = {CASES[name]!r}\nmodel = {CHANGES.get(name, {})!r}\n')
    cfg = Config.fromfile(path)
    cfg.default_scope = 'mmseg' if 'mmseg' in CASES[name] else 'mmdet'
    import_modules_from_strings('mmcls_custom.backbones')
    with task_scope(cfg):
        model = build_on_meta(lambda: MODELS.build(cfg.model))
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    state = {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}
    head = ours.get('decoder.ref_point_head.layers.0.weight', [256, 512])
    result = convert({'state_dict': state}, detect(state)[0].name,
                     Options(wide_ref_points=head == [256, 1024]))
    assert {key: list(value.shape) for key, value in result.state_dict.items()} == ours


def test_widened_reference_points_compute_the_same():
    from mmdet.models.layers.transformer.utils import coordinate_to_encoding
    weight = torch.randn(256, 512)
    points = torch.rand(3, 7, 4)
    narrow = coordinate_to_encoding(points, num_feats=128)
    wide = coordinate_to_encoding(points, num_feats=256)
    torch.testing.assert_close(wide @ widen_ref_points(weight).T, narrow @ weight.T,
                               rtol=1e-4, atol=1e-4)


def test_widening_needs_the_published_layer():
    name = 'bbox_head.transformer.decoder.ref_point_head.0.weight'
    with pytest.raises(CheckpointError, match='wide_ref_points is not valid'):
        convert({'state_dict': {name: torch.ones(4, 16)}}, 'mmdet2', Options(wide_ref_points=True))
    with pytest.raises(CheckpointError, match='does not use it on the way back'):
        convert({'state_dict': {name: torch.ones(4, 8)}}, 'mmdet2', Options(wide_ref_points=True),
                inverse=True)
    plain = convert({'state_dict': {name: torch.ones(4, 8)}}, 'mmdet2')
    assert any('`wide_ref_points=True`' in note for note in plain.notes)
