"""Converted detectors and segmentors equal the models that mmdet and mmseg build."""
from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain.models')
pytest.importorskip('mmseg')

from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.utils import import_modules_from_strings

from mmdcn.analysis.complexity import build_on_meta
from mmdcn.analysis.model_zoo import read_zoo
from mmdcn.apis.inference import task_scope
from mmdcn.checkpoints.class_layers import find_class_layers
from mmdcn.checkpoints.converters import Options, convert, detect
from mmdcn.checkpoints.converters.detectors import widen_ref_points
from tests.configs import recipes
from tests.helpers import ROOT
from tests.mmcls_custom.zoo import downstream_shapes, manifest
from tests.mmdcn.checkpoints.converters.cases import empty, filled, heads, shapes_of

HEADS = ['mask_rcnn_internimage_t', 'cascade_internimage_l', 'dino_internimage_t',
         'cbdino_cbinternimage_h', 'mask_rcnn_flash_internimage_t', 'cascade_flash_internimage_l',
         'dino_flash_internimage_t', 'upernet_internimage_t_ade20k',
         'segformer_internimage_l_mapillary', 'mask2former_internimage_h_ade20k',
         'mask2former_flash_internimage_t_ade20k']
BACKBONE = dict(_delete_=True, type='InternImage', arch='tiny')
WIDTHS = [64, 128, 256, 512]
COCO = f'{ROOT}/configs/coco'
CASES = {
    'mask_rcnn_internimage_t': f'{COCO}/mask-rcnn_internimage-t_fpn_8xb2-1x_coco.py',
    'cascade_internimage_l': f'{COCO}/cascade-mask-rcnn_internimage-l_fpn_8xb2-1x_coco.py',
    'dino_internimage_t': f'{COCO}/dino-4scale_internimage-t_8xb2-1x_coco.py',
    'cbdino_cbinternimage_h': f'{COCO}/cb-dino-4scale_internimage-h_16xb1-20k_coco.py',
    'mask_rcnn_flash_internimage_t': f'{COCO}/mask-rcnn_flash-internimage-t_fpn_8xb2-1x_coco.py',
    'cascade_flash_internimage_l':
        f'{COCO}/cascade-mask-rcnn_flash-internimage-l_fpn_8xb2-1x_coco.py',
    'dino_flash_internimage_t': f'{COCO}/dino-4scale_flash-internimage-t_8xb4-1x_coco.py',
    'upernet_internimage_t_ade20k': 'mmseg::_base_/models/upernet_r50.py',
    'mask2former_flash_internimage_t_ade20k':
        'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
}
CHANGES = {
    'upernet_internimage_t_ade20k': dict(
        pretrained=None, backbone=BACKBONE, auxiliary_head=dict(in_channels=256, num_classes=150),
        decode_head=dict(in_channels=WIDTHS, num_classes=150)),
    'mask2former_flash_internimage_t_ade20k': dict(
        backbone=dict(BACKBONE, type='FlashInternImage'), decode_head=dict(in_channels=WIDTHS)),
}
# The finer encoding of the installed mmdet, which the conversion fits the layer to.
WIDE = {'decoder.ref_point_head.layers.0.weight': [256, 1024]}


def published_shapes(name):
    table = heads()[name]
    family = 'flash_internimage' if 'flash' in name else 'internimage'
    backbone = downstream_shapes(manifest(family, re.search(r'internimage_([tlh])', name)[1]))
    if name.startswith('cb'):
        backbone = {f'cb_modules.{half}.{key}': shape for half in (0, 1)
                    for key, shape in backbone.items()
                    if half == 0 or not key.startswith('patch_embed.')}
        table = table | heads()['cbinternimage_h_backbone_extra']
    return {**{key: shape for key, (_, shape) in table.items()},
            **{f'backbone.{key}': shape for key, shape in backbone.items()}}


def installed_model(name, folder):
    """Names and shapes of a model of the installed frameworks on our backbone."""
    path = folder / 'config.py'
    path.write_text(f'_base_ = {CASES[name]!r}\nmodel = {CHANGES.get(name, {})!r}\n')
    return built(path, 'mmseg' if 'mmseg' in CASES[name] else 'mmdet')


def built(path, scope='mmdet'):
    """Names and shapes of the model of a config."""
    cfg = Config.fromfile(path)
    cfg.default_scope = scope
    import_modules_from_strings(['mmcls_custom.backbones', 'mmdet_custom'])
    with task_scope(cfg):
        model = build_on_meta(lambda: MODELS.build(cfg.model))
    return shapes_of(model.state_dict())


@pytest.mark.parametrize('name', CASES)
def test_published_detectors_fill_the_installed_ones(name, tmp_path):
    shapes = published_shapes(name)
    ours = installed_model(name, tmp_path)
    state = empty(shapes)
    result = convert({'state_dict': state}, detect(state)[0].name)
    assert shapes_of(result.state_dict) == ours
    back = convert({'state_dict': result.state_dict}, detect(state)[0].name, inverse=True)
    assert shapes_of(back.state_dict) == shapes
    if name.startswith('cb'):
        assert len(shapes) == 2987


def test_chunked_feed_forward_fills_the_giant_detector(tmp_path):
    """InternImage-G: every feed-forward layer of the transformer in four chunks."""
    table = heads()
    example = {key.split('.ffns.0.')[1]: shape
               for key, (_, shape) in table['dino_internimage_g_ffn_example'].items()}
    shapes = {key: shape for key, (_, shape) in table['dino_internimage_t'].items()
              if '.ffns.0.' not in key}
    for part in ('encoder', 'decoder'):
        for layer in range(6):
            prefix = f'bbox_head.transformer.{part}.layers.{layer}.ffns.0'
            shapes |= {f'{prefix}.{key}': shape for key, shape in example.items()}
    for i, width in enumerate((1024, 2048, 4096)):
        shapes[f'neck.convs.{i}.conv.weight'][1] = width
    shapes['neck.extra_convs.0.conv.weight'][1] = 4096
    shapes |= {f'backbone.{key}': shape
               for key, shape in downstream_shapes(manifest('internimage', 'g')).items()}
    path = tmp_path / 'config.py'
    path.write_text(f"_base_ = '{COCO}/dino-4scale_internimage-g_16xb1-20k_coco.py'")
    result = convert({'state_dict': empty(shapes)}, 'mmdet2')
    assert shapes_of(result.state_dict) == built(path)


SEGMENTORS = [row for row in read_zoo(ROOT / 'docs/model_zoo.json')['rows']
              if row['task'] == 'segmentation' and row.get('exact_params')]
# One of each kind of head, width and number of classes; the others take minutes more.
QUICK_SEGMENTORS = {('InternImage-T', 'UperNet'), ('InternImage-L', 'SegFormer head'),
                    ('FlashInternImage-S', 'Mask2Former'), ('ConvNeXt-S', 'UperNet')}
segmentors = pytest.mark.parametrize('row', [pytest.param(
    row, id=row['config'].split('/')[-1][:-3],
    marks=() if (row['model'], row['method']) in QUICK_SEGMENTORS else pytest.mark.slow)
    for row in SEGMENTORS])
# Mask2Former's; the others have 150 everywhere, of which only 19 occur in these two sets.
CLASSES = {'ADE20K': 150, 'Cityscapes': 19, 'Mapillary Vistas': 19, 'COCO-Stuff-164K': 171,
           'COCO-Stuff-10K': 171, 'Pascal Context 59': 59, 'NYU Depth V2': 40}
STATISTICS = ('.running_mean', '.running_var', '.num_batches_tracked')


def inputs_of_maps(method, w):
    """Input channels of the layers of a head that read maps of these widths."""
    if method == 'UperNet':
        return {**{f'decode_head.lateral_convs.{i}.conv.weight': w[i] for i in range(3)},
                **{f'decode_head.psp_modules.{i}.1.conv.weight': w[3] for i in range(4)},
                'decode_head.bottleneck.conv.weight': w[3] + 4 * 512,
                'auxiliary_head.convs.0.conv.weight': w[2]}
    if method == 'SegFormer head':
        return {f'decode_head.convs.{i}.conv.weight': w[i] for i in range(4)}
    pixel = 'decode_head.pixel_decoder'
    return {**{f'{pixel}.input_convs.{i}.conv.weight': w[3 - i] for i in range(3)},
            f'{pixel}.lateral_convs.0.conv.weight': w[0]}


def widen_flash_mask2former(shapes):
    """From FlashInternImage-T to S, B and L: 200 queries, wider layers in the pixel decoder."""
    shapes['decode_head.query_embed.weight'][0] = shapes['decode_head.query_feat.weight'][0] = 200
    for i in range(6):
        prefix = f'decode_head.pixel_decoder.encoder.layers.{i}.ffns.0.layers'
        shapes[f'{prefix}.0.0.weight'][0] = shapes[f'{prefix}.0.0.bias'][0] = 2048
        shapes[f'{prefix}.1.weight'][1] = 2048


def published_segmentor(row):
    """Names and shapes of a published file: a manifest's backbone, a head of its kind on it."""
    family, _, size = row['model'].lower().replace('flashi', 'flash_i').partition('-')
    data = manifest(family, size)
    config = data['classification']['config']
    widths = config.get('dims') or [config['channels'] * 2**i for i in range(4)]
    wide = row['method'] == 'Mask2Former' and row['dataset'].startswith(('ADE', 'COCO')) and (
        family == 'internimage')
    table = {'UperNet': 'upernet_internimage_t_ade20k',
             'SegFormer head': 'segformer_internimage_l_mapillary',
             'Mask2Former': 'mask2former_internimage_h_ade20k' if wide else
                            'mask2former_flash_internimage_t_ade20k'}[row['method']]
    shapes = {name: list(shape) for name, (_, shape) in heads()[table].items()}
    for name, channels in inputs_of_maps(row['method'], widths).items():
        shapes[name][1] = channels
    if row['method'] == 'Mask2Former' and family == 'flash_internimage' and size != 't':
        widen_flash_mask2former(shapes)
    for name in ('decode_head.cls_embed.weight', 'decode_head.cls_embed.bias'):
        if name in shapes:
            shapes[name][0] = CLASSES[row['dataset']] + 1
    return shapes | {f'backbone.{key}': shape for key, shape in downstream_shapes(data).items()}


@segmentors
def test_every_published_segmentor_fills_the_model_of_its_config(row):
    """No tensor is missing, left over or of another shape, and the sum is the published one."""
    shapes = published_segmentor(row)
    params = sum(math.prod(shape) for name, shape in shapes.items()
                 if not name.endswith(STATISTICS))
    assert round(params / 1e6, 3) == row['exact_params']
    model = recipes.build(ROOT / row['config'])
    ours = shapes_of(model.state_dict())
    superfluous = {name for name in shapes if name.endswith(('.conv_seg.weight', '.conv_seg.bias'))
                   } if CLASSES[row['dataset']] == 19 else set()
    state = empty(shapes)
    assert detect(state)[0].name == 'mmseg0'
    result = convert({'state_dict': state}, 'mmseg0',
                     Options(class_rows=tuple(range(19))) if superfluous else None)
    assert shapes_of(result.state_dict) == ours
    assert not result.dropped and not result.edited
    assert result.resized == {name: (tuple(shapes[name]), (19, *shapes[name][1:]))
                              for name in superfluous}
    assert row.get('conversion', 'none') == ('mmseg0' if result.renamed else 'none')
    # What training does with the file where nobody has cut it.
    whole = convert({'state_dict': state}, 'mmseg0').state_dict
    mismatched = {name: (tuple(value.shape), tuple(ours[name])) for name, value in whole.items()
                  if list(value.shape) != ours[name]}
    assert set(mismatched) == superfluous
    assert find_class_layers(model, mismatched) == mismatched


# Of each model, names of the frameworks before their renaming, as public checkpoints have them.
OLD_NAMES = {
    'mask_rcnn_internimage_t': ('roi_head.mask_head.upsample.weight', 'rpn_head.rpn_conv.weight'),
    'dino_internimage_t': (
        'bbox_head.transformer.encoder.layers.0.attentions.0.sampling_offsets.weight',
        'bbox_head.transformer.decoder.layers.5.ffns.0.layers.0.0.weight',
        'bbox_head.transformer.level_embeds'),
    'upernet_internimage_t_ade20k': ('decode_head.conv_seg.weight',
                                     'auxiliary_head.conv_seg.weight'),
    'mask2former_flash_internimage_t_ade20k': ('decode_head.query_embed.weight',),
}


@pytest.mark.parametrize('name', OLD_NAMES)
def test_installed_detectors_survive_the_old_names(name, tmp_path):
    """Without reference data: to the old names, a few of which are known, and back."""
    ours = installed_model(name, tmp_path)
    family = 'mmseg0' if 'ade20k' in name else 'mmdet2'
    old = convert({'state_dict': empty(ours)}, family, inverse=True).state_dict
    assert set(OLD_NAMES[name]) <= set(old)
    assert len(old) == len(ours)
    assert shapes_of(convert({'state_dict': old}, family).state_dict) == ours


def test_widened_reference_points_compute_the_same():
    from mmdet.models.layers.transformer.utils import coordinate_to_encoding
    weight = torch.randn(256, 512)
    points = torch.rand(3, 7, 4)
    narrow = coordinate_to_encoding(points, num_feats=128)
    wide = coordinate_to_encoding(points, num_feats=256)
    torch.testing.assert_close(wide @ widen_ref_points(weight).T, narrow @ weight.T,
                               rtol=1e-4, atol=1e-4)


REF_POINTS = ('bbox_head.transformer.decoder.ref_point_head.0.weight',
              'decoder.ref_point_head.layers.0.weight')


@pytest.mark.parametrize('name', REF_POINTS)
def test_the_file_tells_the_width_of_the_reference_points(name):
    """Also under the names of mmdet 3.x, whose versions differ in it."""
    state = {'bbox_head.cls_branches.0.bias': torch.ones(2), name: torch.randn(8, 16)}
    result = convert({'state_dict': state}, 'mmdet2')
    wide = result.state_dict[REF_POINTS[1]]
    assert torch.equal(wide, widen_ref_points(state[name]))
    assert result.resized == {REF_POINTS[1]: ((8, 16), (8, 32))}
    assert any('twice the frequencies' in note for note in result.notes)
    again = convert({'state_dict': result.state_dict}, 'mmdet2')
    assert torch.equal(again.state_dict[REF_POINTS[1]], wide) and not again.changed
    back = convert({'state_dict': result.state_dict}, 'mmdet2', inverse=True)
    assert torch.equal(back.state_dict[REF_POINTS[0]], state[name])


def test_reference_points_that_were_trained_wide_stay_wide():
    state = {REF_POINTS[1]: torch.randn(8, 32)}
    result = convert({'state_dict': state}, 'mmdet2', inverse=True)
    assert torch.equal(result.state_dict[REF_POINTS[0]], state[REF_POINTS[1]])
    assert any('keeps its width' in note for note in result.notes)


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
    expected |= {name: shape for name, shape in WIDE.items() if name in expected}
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
