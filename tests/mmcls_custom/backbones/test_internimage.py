"""InternImage and FlashInternImage against the published models, and as citizens of mmengine."""
from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from mmcls_custom.backbones import FlashInternImage, InternImage
from mmcls_custom.necks import InternImageClipNeck, InternImageConvNeck
from tests.mmcls_custom.plain_internimage import PUBLISHED, published_shapes
from tests.mmcls_custom.plain_internimage import forward as plain_forward
from tests.mmcls_custom.zoo import (
    ACTIVATIONS,
    MANIFESTS,
    SIZES,
    activation_case,
    downstream_shapes,
    family_class,
    fill_rule,
    manifest,
)

TINY = dict(channels=32, depths=(1, 1, 2, 1), groups=(2, 4, 8, 16))
SHALLOW = dict(TINY, depths=(1, 1, 1, 1), mlp_ratio=1.0)
BOTH = pytest.mark.parametrize('cls', [InternImage, FlashInternImage])


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def randomise(model):
    """Non-zero values everywhere, offsets of about half a pixel included."""
    with torch.no_grad():
        for name, param in model.named_parameters():
            if '.offset' in name or '.mask.' in name or 'center_feature' in name:
                param.normal_(std=0.3 if param.ndim == 1 else 0.3 / param.shape[1]**0.5)
            elif param.ndim == 1:
                param.add_(0.1 * torch.randn_like(param))
    return model


def shapes(model):
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def build_meta(cls, *args, **kwargs):
    with torch.device('meta'):
        return cls(*args, **kwargs)


@pytest.mark.parametrize('family, size', MANIFESTS)
def test_downstream_manifest(family, size):
    data = manifest(family, size)
    expected = downstream_shapes(data)
    published = family_class(family)
    core_op = 'DCNv4' if published is FlashInternImage else 'DCNv3'
    for model in (build_meta(published, SIZES[size]),
                  build_meta(published, core_op=core_op,
                             **data['downstream_backbone']['config'])):
        assert shapes(model) == expected
        count = sum(p.numel() for p in model.parameters())
        assert count == data['downstream_backbone']['num_params']


@pytest.mark.parametrize('family, size', [('internimage', 't'), ('internimage', 'l'),
                                          ('internimage', 'h'), ('flash_internimage', 's')])
def test_classification_manifest(family, size):
    data = manifest(family, size)['classification']
    config = dict(data['config'])
    if config.pop('use_clip_projector', False):
        neck_class, channels = InternImageClipNeck, lambda m: m.cfg.widths[-2:]
    else:
        neck_class, channels = InternImageConvNeck, lambda m: m.cfg.widths[-1]
    model = build_meta(family_class(family), **config)
    neck = build_meta(neck_class, channels(model))
    head = {'head.weight': [1000, neck.out_channels], 'head.bias': [1000]}
    assert {**shapes(model), **shapes(neck), **head} == data['state_dict']


def assert_stored(outputs, meta, path):
    stored = np.load(path)
    for (name, spec), out in zip(meta['outputs'].items(), outputs, strict=True):
        assert list(out.shape) == spec['shape']
        got = out.detach().numpy().reshape(-1)[::spec['flat_stride']]
        np.testing.assert_allclose(got, stored[name], rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize('case', ACTIVATIONS)
def test_activations(case):
    meta, path = activation_case(case)
    rule = fill_rule()
    model = rule.fill_(family_class(meta['family'])(**meta['config']).eval(), meta['seed'])
    with torch.no_grad():
        assert_stored(model(rule.image(meta['input_shape'], meta['seed'])), meta, path)


@pytest.mark.parametrize('case', ['tiny_cls_head_a', 'tiny_h_clip_head_a'])
def test_classifier_logits(case):
    meta, path = activation_case(case)
    rule = fill_rule()
    config = dict(meta['config'])
    num_classes = config.pop('num_classes')
    clip = config.pop('use_clip_projector', False)
    backbone = family_class(meta['family'])(**config).eval()
    widths = backbone.cfg.widths
    neck = (InternImageClipNeck(widths[-2:]) if clip else InternImageConvNeck(widths[-1])).eval()
    head = torch.nn.Linear(neck.out_channels, num_classes)
    for part in (backbone, neck):
        rule.fill_(part, meta['seed'])
    rule.fill_(head, meta['seed'], rename=lambda name: f'head.{name}')
    with torch.no_grad():
        features, = neck(backbone(rule.image(meta['input_shape'], meta['seed'])))
        assert_stored([head(features)], meta, path)


@pytest.mark.parametrize(('family', 'arch'), PUBLISHED)
def test_published_names_and_sizes(family, arch):
    facts, millions = PUBLISHED[family, arch]
    expected = published_shapes(**facts)
    assert shapes(build_meta(family_class(family), arch)) == expected
    if millions:  # as published: with 1x1 convolution, its norm and 1000 classes
        last = facts['channels'] * 8
        width = int(1.5 * last)
        count = sum(map(math.prod, expected.values())) + (last + 2) * width + 1000 * (width + 1)
        assert count / 1e6 == pytest.approx(millions, rel=0.02)


VARIANTS = [
    (InternImage, {}), (InternImage, dict(layer_scale=1.0, offset_scale=2.0, post_norm=True)),
    (InternImage, dict(res_post_norm=True, dw_kernel_size=5, center_feature_scale=True,
                       level2_post_norm=True, level2_post_norm_block_ids=(1,))),
    (InternImage, dict(post_norm=True, center_feature_scale=True, norm_layer='BN')),
    (InternImage, dict(remove_center=True)),
    (FlashInternImage, dict(layer_scale=1.0)),
    (FlashInternImage, dict(dw_kernel_size=3, offset_scale=0.5, post_norm=True)),
    (FlashInternImage, dict(center_feature_scale=True, dcn_output_bias=True, mlp_fc2_bias=True)),
]


@pytest.mark.parametrize(('cls', 'settings'), VARIANTS)
def test_features_are_those_of_the_equations(cls, settings):
    """Independent of golden data: equations over the state dict, around loops over samples."""
    model = randomise(cls(**dict(TINY, mlp_ratio=2.0, **settings)).eval()).double()
    for name, value in model.named_buffers():
        if name.endswith(('running_mean', 'running_var')):
            value.uniform_(0.5, 1.5)
    image = torch.randn(1, 3, 37, 24, dtype=torch.float64)
    options = {name: value for name, value in settings.items() if name in (
        'offset_scale', 'post_norm', 'remove_center', 'level2_post_norm_block_ids')}
    with torch.no_grad():
        expected = plain_forward(model.state_dict(), image, depths=TINY['depths'],
                                 groups=TINY['groups'], **options)
        for got, want in zip(model(image), expected, strict=True):
            assert want.std() > 0.1
            torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize('case', ['tiny_h_a', 'tiny_flash_l_a'])
def test_golden_activations_of_the_equations(case):
    meta, path = activation_case(case)
    rule, config = fill_rule(), dict(meta['config'])
    model = rule.fill_(family_class(meta['family'])(**config).eval(), meta['seed'])
    options = {name: tuple(value) if isinstance(value, list) else value
               for name, value in config.items() if value and name in (
                   'depths', 'groups', 'offset_scale', 'post_norm', 'remove_center',
                   'level2_post_norm_block_ids')}
    with torch.no_grad():
        assert_stored([x.contiguous() for x in plain_forward(
            model.state_dict(), rule.image(meta['input_shape'], meta['seed']), **options)],
            meta, path)


@pytest.mark.parametrize('cls, arch', [(c, a) for c in (InternImage, FlashInternImage)
                                       for a in c.archs])
def test_every_arch_builds(cls, arch):
    model = build_meta(cls, arch, out_indices=(1, 3))
    assert model.out_channels == (model.cfg.channels * 2, model.cfg.channels * 8)
    depths = {model.get_layer_depth(name)[0] for name, _ in model.named_parameters()}
    assert depths == set(range(sum(model.cfg.depths) + 1))


@BOTH
@pytest.mark.parametrize('size', [(64, 96), (33, 47), (1, 5)])
def test_feature_sizes(cls, size):
    outs = cls('pico').eval()(torch.randn(2, 3, *size))
    for i, out in enumerate(outs):
        rounded_up = [-(-s // 2**(i + 2)) for s in size]
        assert list(out.shape) == [2, 32 * 2**i, *rounded_up]
        assert out.is_contiguous(memory_format=torch.channels_last)


def test_keywords_win_over_the_preset():
    model = FlashInternImage('pico', layer_scale=1e-5, depths=[1, 1, 1, 1])
    assert model.levels[0].blocks[0].gamma1[0].item() == pytest.approx(1e-5)
    assert len(model.levels[2].blocks) == 1
    assert build_meta(InternImage, 'tiny', layer_scale=None).levels[0].blocks[0].gamma1 is None


def test_builds_from_a_published_config():
    model = MODELS.build(dict(
        type='InternImage', core_op='DCNv3', channels=32, depths=[1, 1, 2, 1], groups=[2, 4, 8, 16],
        mlp_ratio=4., drop_path_rate=0.2, norm_layer='LN', layer_scale=1.0, offset_scale=2.0,
        post_norm=True, with_cp=True, out_indices=(1, 2, 3), init_cfg=None))
    rates = [b.drop_path.drop_prob for level in model.levels for b in level.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize('kwargs, words', [
    (dict(arch='tinny'), r"arch is not valid: got 'tinny', expected one of pico, tiny"),
    (dict(TINY, out_indices=(0, 4)), 'out_indices is not valid'),
    (dict(TINY, out_indices=()), 'out_indices is not valid'),
    (dict(TINY, out_indices=(2, 1)), 'out_indices is not valid'),
    (dict(TINY, groups=(3, 4, 8, 16)), 'groups is not valid'),
    (dict(TINY, depths=(1, 1, 2)), 'depths is not valid'),
    (dict(TINY, norm_layer='GN'), "norm_layer is not valid: got 'GN'"),
    (dict(TINY, act_layer='Tanh'), "act_layer is not valid: got 'Tanh'"),
    (dict(TINY, core_op='DCNv2'), "core_op is not valid: got 'DCNv2'"),
    (dict(TINY, frozen_stages=5), 'frozen_stages is not valid: got 5'),
    (dict(TINY, drop_path_rate=1.0), 'drop_path_rate is not valid'),
    (dict(TINY, layerscale=1.0), "InternImage setting is not valid: got 'layerscale'"),
    (dict(TINY, level2_post_norm=True, level2_post_norm_block_ids=(2,)), 'block_ids is not valid'),
    (dict(TINY, level2_post_norm=True), 'block_ids is not valid'),
    (dict(TINY, post_norm=True, res_post_norm=True), 'res_post_norm is not valid'),
    (dict(TINY, dcn_output_bias=False), 'dcn_output_bias is not valid'),
    (dict(channels=32), 'depths is not valid: got None'),
])
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        InternImage(**kwargs)


@pytest.mark.parametrize('arch, saved', [('tiny', 0.391), ('huge', 0.414)])
def test_sharing_weights_saves_parameters(arch, saved):
    shared, unshared = (build_meta(InternImage, arch, core_op=op)
                        for op in ('DCNv3', 'DCNv3Unshared'))
    counts = [sum(p.numel() for p in model.parameters()) for model in (shared, unshared)]
    cfg = shared.cfg
    per_block = zip(cfg.depths, cfg.widths, strict=True)
    assert counts[1] - counts[0] == 8 * sum(depth * width**2 for depth, width in per_block)
    assert 1 - counts[0] / counts[1] == pytest.approx(saved, abs=5e-4)


def test_flash_refuses_dcnv3():
    with pytest.raises(ValueError, match="core_op is not valid: got 'DCNv3'"):
        FlashInternImage('pico', core_op='DCNv3')


@pytest.mark.parametrize('shape', [(3, 32, 32), (1, 4, 32, 32)])
def test_bad_input(shape):
    with pytest.raises(ValueError, match=r'expected \(N, 3, H, W\)'):
        InternImage(**TINY)(torch.zeros(shape))


@BOTH
@pytest.mark.parametrize('variant', [
    {}, dict(post_norm=True, layer_scale=1.0, dw_kernel_size=3),
    dict(res_post_norm=True, center_feature_scale=True, level2_post_norm=True,
         level2_post_norm_block_ids=(0, 1), dw_kernel_size=5),
    dict(norm_layer='BN', act_layer='SiLU', remove_center=True)])
def test_gradients_reach_every_parameter(cls, variant):
    model = randomise(cls(**TINY, **variant))
    sum((out * torch.randn_like(out)).sum() for out in model(torch.randn(2, 3, 64, 64))).backward()
    for name, param in model.named_parameters():
        assert param.grad is not None and param.grad.isfinite().all(), name
        assert param.grad.abs().sum() > 0, name


def compiled_matches(cls, backend, grad):
    torch._dynamo.reset()
    model = randomise(cls(**SHALLOW))
    image = torch.randn(1, 3, 40, 56)
    with torch.set_grad_enabled(grad):
        outs = torch.compile(model, fullgraph=True, backend=backend)(image)
        for got, expected in zip(outs, model(image), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    if grad:
        sum(out.square().mean() for out in outs).backward()
        assert all(p.grad is not None for p in model.parameters())


@BOTH
@pytest.mark.parametrize('grad', [False, True])
def test_traces_without_a_break(cls, grad):
    compiled_matches(cls, 'aot_eager', grad)


@pytest.mark.slow
@BOTH
def test_compiled_equals_eager(cls):
    compiled_matches(cls, 'inductor', grad=False)


def test_trains_in_an_mmpretrain_classifier():
    mmpretrain = pytest.importorskip('mmpretrain')
    importlib.import_module('mmpretrain.models')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='FlashInternImage', arch='pico', out_indices=(3,)),
            neck=dict(type='InternImageConvNeck', in_channels=256),
            head=dict(type='LinearClsHead', in_channels=384, num_classes=5)))
        wrapper = build_optim_wrapper(model, dict(
            optimizer=dict(type='AdamW', lr=1e-3),
            constructor='LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.9)))
    images = torch.randn(10, 3, 32, 32)
    samples = [mmpretrain.structures.DataSample().set_gt_label(i % 5) for i in range(10)]
    losses = []
    for _ in range(8):
        loss = model(images, samples, mode='loss')['loss']
        wrapper.update_params(loss)
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
