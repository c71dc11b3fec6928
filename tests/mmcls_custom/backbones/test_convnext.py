"""Isotropic and deformable ConvNeXt and deformable ViT: sizes, weights, behaviour, first steps."""
from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

pytest.importorskip('mmpretrain')


from mmcls_custom.backbones.convnext import DeformableConvNeXt, IsotropicConvNeXt
from mmcls_custom.backbones.vision_transformer import DeformableVisionTransformer
from mmdcn.analysis.complexity import build_on_meta, count
from tests.mmcls_custom.zoo import manifest

SMALL = dict(depths=[1, 1, 2, 1], channels=[16, 32, 48, 64])
ONE_STAGE = dict(depths=[2], channels=[32])
VIT = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
SMALL_MODELS = {
    'iso': lambda **kw: IsotropicConvNeXt(ONE_STAGE, **kw),
    'convnext': lambda **kw: DeformableConvNeXt(SMALL, **kw),
    'vit': lambda **kw: DeformableVisionTransformer(VIT, img_size=64, **kw),
}
SIZES = dict(t='tiny', s='small', b='base', l='large', xl='xlarge')


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def classifier(backbone, channels, pool=False, **settings):
    return MODELS.build(dict(
        type='mmpretrain.ImageClassifier', backbone=backbone, _scope_='mmpretrain',
        neck=dict(type='GlobalAveragePooling') if pool else None,
        head=dict(type='LinearClsHead', in_channels=channels, num_classes=1000), **settings))


def published_name(name):
    """The published key behind one of ours: the table in mmcls_custom/backbones/convnext.py."""
    for old, new in (('head.fc.', 'head.'), ('backbone.', ''), ('depthwise_conv', 'dwconv'),
                     ('pointwise_conv', 'pwconv')):
        name = name.replace(old, new, 1)
    return name


def shapes(model):
    return {name: list(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.parametrize('size', SIZES)
def test_convnext_classifier_has_the_published_weights(size):
    expected = manifest('convnext', size)['classification']['state_dict']
    dims = manifest('convnext', size)['classification']['config']['dims']
    model = build_on_meta(lambda: classifier(dict(type='ConvNeXt', arch=SIZES[size]), dims[-1]))
    assert {published_name(name).replace('norm3.', 'norm.'): shape
            for name, shape in shapes(model).items()} == expected


@pytest.mark.parametrize('size', 'sbl')
def test_isotropic_classifier_has_the_published_weights(size):
    data = manifest('convnext_iso', size)['classification']
    model = build_on_meta(lambda: classifier(
        dict(type='IsotropicConvNeXt', arch=SIZES[size]), data['config']['dim']))
    renamed = {}
    for name, shape in shapes(model).items():
        name = published_name(name).replace('norm0.', 'norm.')
        name = name.replace('downsample_layers.0.0.', 'stem.').replace('stages.0.', 'blocks.')
        renamed[name] = shape
    assert renamed == data['state_dict']
    assert sum(p.numel() for p in model.parameters()) == data['num_params']


@pytest.mark.parametrize('size, params, macs', [('small', 22, 4.3), ('base', 87, 16.9),
                                                ('large', 306, 59.7)])
def test_isotropic_complexity(size, params, macs):
    got = count(build_on_meta(lambda: classifier(
        dict(type='IsotropicConvNeXt', arch=size),
        IsotropicConvNeXt.arch_settings[size]['channels'][0])), (1, 3, 224, 224))
    assert got.params / 1e6 == pytest.approx(params, abs=0.5)
    assert got.macs / 1e9 == pytest.approx(macs, rel=0.01)


@pytest.mark.parametrize('backbone, params, macs', [
    (dict(type='ConvNeXt', arch='base'), 88.6, 15.4),
    (dict(type='DeformableConvNeXt', arch='base'), 105.4, 18.4),
    (dict(type='DeformableConvNeXt', arch='base', without_pointwise=False), 126.4, 22.1),
    (dict(type='DeformableConvNeXt', arch='base', group_channels=64), 92.1, 16.1),
    (dict(type='DeformableVisionTransformer'), 84.4, 16.4),
    (dict(type='DeformableVisionTransformer', group_channels=64), 75.4, 14.6),
], ids=str)
def test_deformable_complexity(backbone, params, macs):
    vit = 'Vision' in backbone['type']
    model = build_on_meta(lambda: classifier(backbone, 768 if vit else 1024, pool=vit))
    got = count(model, (1, 3, 224, 224))
    assert got.params / 1e6 == pytest.approx(params, abs=0.05)
    assert got.macs / 1e9 == pytest.approx(macs, rel=0.005)


@pytest.mark.parametrize('cls, arch', [
    *((IsotropicConvNeXt, arch) for arch in IsotropicConvNeXt.arch_settings),
    *((DeformableConvNeXt, arch) for arch in ('tiny', 'small', 'base', 'large', 'xlarge')),
    *((DeformableVisionTransformer, arch) for arch in ('deit-tiny', 'deit-small', 'base', 'large')),
])
def test_every_arch_builds_and_keeps_its_grid(cls, arch):
    dense = {} if cls is DeformableVisionTransformer else dict(gap_before_final_norm=False)
    model = build_on_meta(lambda: cls(arch, **dense))
    with torch.no_grad():
        out, = model(torch.zeros(2, 3, 128, 96, device='meta'))
    stride = 32 if cls is DeformableConvNeXt else 16
    assert out.shape[2:] == (128 // stride, 96 // stride)


def wake(model):
    """Give DCNv4's zero offsets and weights some value, so that gradients reach all before them."""
    for name, param in model.named_parameters():
        if 'offset_mask' in name:
            nn.init.normal_(param, std=0.1)
    return model


def test_stages_of_deformable_convnext():
    model = DeformableConvNeXt(SMALL, out_indices=(0, -2, -1), gap_before_final_norm=False)
    outs = model(torch.randn(1, 3, 96, 64))
    assert [tuple(out.shape[1:]) for out in outs] == [(16, 24, 16), (48, 6, 4), (64, 3, 2)]


@pytest.mark.parametrize('indices', [-1, 0, (0,), (-1,)])
def test_isotropic_equals_its_blocks(indices):
    model = IsotropicConvNeXt(ONE_STAGE, gap_before_final_norm=False, out_indices=indices).eval()
    stem = model.downsample_layers[0][0]
    x = torch.randn(1, 3, 50, 80)
    y = nn.functional.conv2d(x, stem.weight, stem.bias, stride=16)
    for block in model.stages[0]:
        y = block(y)
    y = nn.functional.layer_norm(y.permute(0, 2, 3, 1), (32,), eps=1e-6).permute(0, 3, 1, 2)
    out, = model(x)
    assert out.shape == (1, 32, 3, 5)
    torch.testing.assert_close(out, y)


def test_deformable_layer_with_mean_start_is_a_mean():
    """Weights of 1/9 at offset 0 average the 3x3 neighbourhood, zeros outside the image."""
    block = DeformableConvNeXt(SMALL, mask_init=1 / 9).stages[1][0]
    x = torch.randn(2, 32, 5, 7)
    got = block.depthwise_conv(x)
    torch.testing.assert_close(got, nn.functional.avg_pool2d(x, 3, 1, 1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize('kind, channels', [('convnext', 64), ('vit', 32)])
def test_initialisation_of_a_whole_classifier_spares_the_operator(kind, channels):
    backbone = (dict(type='DeformableConvNeXt', arch=SMALL) if kind == 'convnext' else
                dict(type='DeformableVisionTransformer', arch=VIT, img_size=64))
    model = classifier(backbone, channels, pool=kind == 'vit', init_cfg=dict(
        type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0))
    model.init_weights()
    masks = {n: p for n, p in model.named_parameters() if 'offset_mask' in n}
    assert masks and not any(p.any() for p in masks.values())


def train_steps(backbone, channels, pool, steps=3, **settings):
    """Gradient norms of a classifier's first steps, and those of its offsets."""
    model = classifier(backbone, channels, pool, init_cfg=dict(
        type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0), **settings)
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    x, y = torch.randn(4, 3, 64, 64), torch.arange(4)
    totals, offsets = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.head(model.extract_feat(x)), y).backward()
        totals.append(nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())
        grads = [p.grad[:18] for n, p in model.named_parameters() if 'offset_mask.weight' in n]
        offsets.append([grad.norm().item() for grad in grads])
        optimizer.step()
    return totals, offsets


@pytest.mark.parametrize('kind', ['convnext', 'vit'])
def test_first_steps_are_calm_and_offsets_learn_from_the_second(kind):
    if kind == 'convnext':
        args = dict(type='DeformableConvNeXt', arch=SMALL), 64, False
        plain = dict(type='ConvNeXt', arch=SMALL), 64, False
    else:
        args = dict(type='DeformableVisionTransformer', arch=VIT, img_size=64), 32, True
        plain = dict(type='VisionTransformer', arch=VIT, img_size=64, out_type='featmap',
                     with_cls_token=False), 32, True
    totals, offsets = train_steps(*args)
    usual, _ = train_steps(*plain)
    assert max(totals) < 3 * max(usual)
    assert not any(offsets[0])
    assert all(norm > 0 for norm in offsets[1])


def test_mean_start_calms_a_model_without_layer_scale():
    # In a very narrow model the factor of 1000 behind the zeros does not show.
    plain = dict(arch=dict(depths=[2, 2, 6, 2], channels=[32, 64, 128, 256]),
                 layer_scale_init_value=0.0)
    ours = dict(plain, type='DeformableConvNeXt')
    (usual,), _ = train_steps(dict(plain, type='ConvNeXt'), 256, False, steps=1)
    (zero,), _ = train_steps(ours, 256, False, steps=1)
    (mean,), _ = train_steps(dict(ours, mask_init=1 / 9), 256, False, steps=1)
    assert zero > 5 * usual
    assert mean < 2 * usual


@pytest.mark.parametrize('model', SMALL_MODELS)
def test_layer_depth(model):
    backbone = SMALL_MODELS[model]()
    depths = {n: backbone.get_layer_depth(f'backbone.{n}', 'backbone.')
              for n, _ in backbone.named_parameters()}
    num_layers, = {n for _, n in depths.values()}
    assert num_layers == {'iso': 4, 'convnext': 8, 'vit': 4}[model]
    assert min(depths.values())[0] == 0
    assert backbone.get_layer_depth('head.fc.weight', 'backbone.') == (num_layers - 1, num_layers)
    if model == 'iso':
        assert depths['downsample_layers.0.0.weight'][0] == 0
        assert depths['stages.0.1.norm.bias'][0] == 2
        assert depths['norm0.weight'][0] == 3


def test_layer_scale_of_isotropic():
    for arch, scale in (('small', None), ('base', None), ('large', 1e-6)):
        model = build_on_meta(lambda arch=arch: IsotropicConvNeXt(arch))
        assert (model.stages[0][0].gamma is not None) == (scale is not None)


@pytest.mark.parametrize('build, words', [
    (lambda: IsotropicConvNeXt('tiny'), "arch is not valid: got 'tiny'"),
    (lambda: IsotropicConvNeXt(SMALL), 'of length 1'),
    (lambda: IsotropicConvNeXt(ONE_STAGE, out_indices=1), 'out_indices is not valid: got 1'),
    (lambda: DeformableConvNeXt(SMALL, out_indices=(0, 4)), 'out_indices is not valid'),
    (lambda: DeformableConvNeXt(SMALL, group_channels=24), 'group_channels is not valid: got 24'),
    (lambda: DeformableVisionTransformer(VIT, out_type='cls_token'), 'out_type is not valid'),
    (lambda: DeformableVisionTransformer(VIT, group_channels=7), 'group_channels is not valid'),
])
def test_refusals(build, words):
    with pytest.raises(ValueError, match=words):
        build()
