"""The composite backbone: composition, freezing, layers, loading."""
from __future__ import annotations

import copy

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

pytest.importorskip('mmdet')

from mmcls_custom.backbones import InternImage
from mmdcn.analysis.complexity import build_on_meta
from mmdcn.checkpoints import CheckpointError
from mmdcn.engine.optimizers import LayerDecayOptimWrapperConstructor
from mmdet_custom.backbones import CompositeInternImage
from tests.mmcls_custom.zoo import downstream_shapes, manifest
from tests.mmdcn.checkpoints.converters.cases import heads

ODD = [(64, 96), (45, 61), (33, 70)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def build(awake: bool = True, **settings) -> CompositeInternImage:
    """The small composite; awake: no zero or one hides a value."""
    torch.manual_seed(1)
    model = CompositeInternImage('pico', **settings)
    if awake:
        with torch.no_grad():
            for param in model.parameters():
                noise = torch.randn_like(param)
                param.add_(0.1 * noise if param.ndim < 2 else
                           0.3 * noise / param[0].numel() ** 0.5)
    return model


def half(model: CompositeInternImage, index: int) -> InternImage:
    """One half as an InternImage; the lead with the assisting network's stem."""
    alone = InternImage('pico').to(next(model.parameters()).dtype)
    alone.load_state_dict(model.cb_modules[0].state_dict())
    if index:
        state = {name: value for name, value in model.cb_modules[1].state_dict().items()
                 if 'gamma' not in name}
        assert not alone.load_state_dict(state, strict=False).unexpected_keys
    return alone.eval()


def composed(model: CompositeInternImage, image: torch.Tensor) -> list[torch.Tensor]:
    """The lead's maps by the formula, one addition at a time, nearest pixels by index."""
    stem = model.cb_modules[0].patch_embed(image)
    feeding = half(model, 0)(image)
    lead, x, maps = model.cb_modules[1], stem, []
    for i, level in enumerate(lead.levels):
        given = 0
        for j in range(i, 4):
            part = feeding[j]
            if j > i:
                conv = model.cb_linears[i][j - i]
                part = torch.einsum('nchw,dc->ndhw', part, conv.weight[:, :, 0, 0])
                part = part + conv.bias[:, None, None]
                rows = torch.arange(x.shape[1]) * part.shape[2] // x.shape[1]
                columns = torch.arange(x.shape[2]) * part.shape[3] // x.shape[2]
                part = part[:, :, rows][:, :, :, columns]
            given = given + part
        gamma = getattr(lead, f'gamma{i}')
        out, x = level(x + gamma * given.permute(0, 2, 3, 1))
        maps.append(out.permute(0, 3, 1, 2))
    return maps


@pytest.mark.parametrize('size', ODD)
def test_lead_is_fed_as_the_formula_says(size: tuple[int, int]) -> None:
    model = build().eval().double()
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    feeding, maps = model(image, halves=True)
    for got, expected in zip(feeding, half(model, 0)(image), strict=True):
        assert torch.equal(got, expected)
    for got, expected in zip(maps, composed(model, image), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
        assert got.std() > 0


def test_fresh_halves_are_two_networks_on_one_stem() -> None:
    model = build(awake=False).eval()
    image = torch.randn(1, 3, 45, 61)
    feeding, lead = model(image, halves=True)
    assert all(torch.equal(a, b) for a, b in zip(feeding, half(model, 0)(image), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(lead, half(model, 1)(image), strict=True))
    assert not torch.equal(feeding[0], lead[0])


def test_as_a_backbone_it_gives_the_lead() -> None:
    model = build(out_indices=(1, 3)).eval()
    image = torch.randn(1, 3, 64, 64)
    outs, (feeding, lead) = model(image), model(image, halves=True)
    assert len(outs) == len(feeding) == 2
    assert all(torch.equal(a, b) for a, b in zip(outs, lead, strict=True))
    assert [out.shape[1] for out in outs] == list(model.out_channels) == [64, 256]
    assert [out.shape[1] for out in feeding] == [64, 256]


def test_batch_equals_single_images() -> None:
    model = build().eval().double()
    images = torch.randn(3, 3, 45, 61, dtype=torch.float64)
    with torch.no_grad():
        batch = model(images, halves=True)
        for i in range(3):
            for got, expected in zip(batch, model(images[i:i + 1], halves=True), strict=True):
                for a, b in zip(got, expected, strict=True):
                    torch.testing.assert_close(a[i:i + 1], b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype_stays_what_it_is(dtype: torch.dtype) -> None:
    model, image = build().eval(), torch.randn(1, 3, 45, 61)
    with torch.no_grad():
        expected = model(image)
        outs = model.to(dtype)(image.to(dtype))
    for got, full in zip(outs, expected, strict=True):
        assert got.dtype == dtype
        assert (got.float() - full).abs().mean() < 0.1 * full.abs().mean()


def test_autocast_trains() -> None:
    model = build().train()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        halves = model(torch.randn(2, 3, 40, 56), halves=True)
    sum(out.float().pow(2).mean() for maps in halves for out in maps).backward()
    assert all(param.grad.isfinite().all() for param in model.parameters())


@pytest.mark.parametrize('with_cp', [False, True])
def test_gradients_reach_every_parameter(with_cp: bool) -> None:
    torch.manual_seed(3)
    model = build(with_cp=with_cp, drop_path_rate=0.1).train()
    sum((out * torch.randn_like(out)).mean()
        for out in model(torch.randn(2, 3, 64, 64))).backward()
    for name, param in model.named_parameters():
        assert param.grad is not None and param.grad.abs().sum() > 0, name


def test_checkpointing_changes_no_gradient() -> None:
    grads = []
    for with_cp in (False, True):
        model = build(with_cp=with_cp).train()
        torch.manual_seed(4)
        sum(out.pow(2).mean() for out in model(torch.randn(1, 3, 40, 56))).backward()
        grads.append([param.grad for param in model.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_patterns_freeze_and_keep_eval() -> None:
    model = build(frozen_patterns=[r'^cb_modules\.0\.', r'\.levels\.0\.downsample\.', '^cb_lin'],
                  norm_layer='BN').train()
    trained = {name for name, param in model.named_parameters() if param.requires_grad}
    frozen = {name for name, _ in model.named_parameters()} - trained
    assert 'cb_modules.1.levels.0.downsample.conv.weight' in frozen
    assert 'cb_modules.1.levels.0.blocks.0.norm1.0.weight' in trained
    assert {'cb_modules.1.gamma0', 'cb_modules.1.levels.1.downsample.conv.weight'} <= trained
    assert not any(name.startswith(('cb_modules.0.', 'cb_linears.')) for name in trained)
    assert not any(module.training for module in model.cb_modules[0].modules())
    lead = model.cb_modules[1]
    assert lead.training and lead.levels[0].training and lead.levels[0].blocks[0].mlp.training
    assert not lead.levels[0].downsample.norm[0].training
    sum(out.mean() for out in model(torch.randn(2, 3, 64, 64))).backward()
    assert {name for name, param in model.named_parameters() if param.grad is not None} == trained


def test_all_of_it_can_be_frozen() -> None:
    model = build(frozen_patterns=['.']).train()
    assert not any(param.requires_grad for param in model.parameters())
    assert not any(module.training for module in model.modules())


def test_a_pattern_may_name_what_trains() -> None:
    model = build(frozen_patterns=[r'^(?!cb_modules\.1\.levels\.3\.)']).train()
    trained = {name for name, param in model.named_parameters() if param.requires_grad}
    assert trained == {name for name, _ in model.named_parameters()
                       if name.startswith('cb_modules.1.levels.3.')}
    assert [level.training for level in model.cb_modules[1].levels] == [False] * 3 + [True]


@pytest.mark.parametrize('settings, message', [
    (dict(frozen_patterns=['patch_embed', 'stem']), "frozen_patterns is not valid: got 'stem'"),
    (dict(frozen_patterns='.'), 'expected a list of regular expressions'),
    (dict(frozen_stages=1), 'frozen_stages is not valid: got 1, expected frozen_patterns'),
    (dict(out_indices=(4,)), 'out_indices is not valid'),
    (dict(depth=3), 'InternImage setting is not valid'),
])
def test_wrong_arguments(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompositeInternImage('pico', **settings)


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r'got \(1, 4, 32, 32\), expected \(N, 3, H, W\)'):
        build()(torch.zeros(1, 4, 32, 32))


def test_each_half_decays_like_an_internimage() -> None:
    model, alone = build(), InternImage('pico')
    for name, _ in model.named_parameters():
        layer = model.get_layer_depth(f'backbone.{name}', 'backbone.')
        parts = name.split('.', 2)
        if parts[0] == 'cb_modules' and parts[2].startswith(('patch_embed', 'levels')):
            assert layer == alone.get_layer_depth(parts[2]), name
        else:
            assert layer == (6, 7), name
    assert model.get_layer_depth('bbox_head.fc.weight', 'backbone.') == (6, 7)
    assert model.get_layer_depth('cb_modules.1.levels.0.blocks.0.mlp.fc1.weight') == (1, 7)


def test_layer_decay_reaches_both_halves() -> None:
    detector = nn.Module()
    detector.backbone = build()
    cfg = dict(optimizer=dict(type='AdamW', lr=1.0))
    settings = LayerDecayOptimWrapperConstructor(
        cfg, dict(layer_decay_rate=0.5)).param_settings(detector)
    for index in (0, 1):
        scale = settings[f'backbone.cb_modules.{index}.levels.1.blocks.0.mlp.fc1.weight'].lr_scale
        assert scale == 0.5**4
    assert settings['backbone.cb_modules.1.gamma3'].lr_scale == 1.0


def save(tmp_path, state: dict, **wrapper) -> dict:
    torch.save({'state_dict': state, **wrapper}, tmp_path / 'weights.pth')
    return dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))


@pytest.mark.parametrize('as_list', [False, True])
def test_one_file_fills_both_halves(tmp_path, as_list: bool) -> None:
    whole = InternImage('pico')
    # A classifier's file: other parts beside the backbone, under `model`.
    state = {**whole.state_dict(), 'head.weight': torch.ones(3)}
    cfg = save(tmp_path, state)
    model = build(init_cfg=[cfg] if as_list else cfg)
    gamma = model.cb_modules[1].gamma0.detach().clone()
    model.init_weights()
    for index in (0, 1):
        filled = model.cb_modules[index].state_dict()
        assert all(torch.equal(value, filled[name]) for name, value in whole.state_dict().items()
                   if index == 0 or not name.startswith('patch_embed'))
    assert torch.equal(model.cb_modules[1].gamma0, gamma)  # no file of one network has any


def test_missing_layers_of_the_file_are_an_error(tmp_path) -> None:
    state = {name: value for name, value in InternImage('pico').state_dict().items()
             if not name.startswith('levels.2')}
    with pytest.raises(CheckpointError, match='does not fit the model'):
        build(init_cfg=save(tmp_path, state)).init_weights()


def test_a_composite_file_fills_all(tmp_path) -> None:
    saved = build().state_dict()
    state = {f'backbone.{name}': value for name, value in saved.items()}
    model = build(awake=False, init_cfg=dict(save(tmp_path, state), prefix='backbone.'))
    model.init_weights()
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_copies_and_names() -> None:
    model = build().eval()
    image = torch.randn(1, 3, 40, 56)
    assert all(torch.equal(a, b) for a, b in
               zip(copy.deepcopy(model)(image), model(image), strict=True))
    for scope in ('mmengine', 'mmdet', 'mmseg'):
        with DefaultScope.overwrite_default_scope(scope):
            assert MODELS.get('CompositeInternImage') is CompositeInternImage
    assert model.eval() is model and not model.cb_modules[1].training


def test_names_are_the_published_ones() -> None:
    whole = downstream_shapes(manifest('internimage', 'h'))
    expected = {f'cb_modules.{index}.{name}': shape for index in (0, 1)
                for name, shape in whole.items()
                if index == 0 or not name.startswith('patch_embed')}
    expected |= {name.removeprefix('backbone.'): shape for name, (_, shape) in
                 heads()['cbinternimage_h_backbone_extra'].items()}
    model = build_on_meta(lambda: CompositeInternImage('huge'))
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == expected
