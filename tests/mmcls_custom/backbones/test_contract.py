"""What every backbone promises; a new one is tested by existing.

All classes that ``mmcls_custom/backbones`` registers take part with their preset ``pico``, some
with further settings that lead through other code (``VARIANTS``).
"""
from __future__ import annotations

import copy
import importlib
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from tests.helpers import ROOT

pytest.importorskip('mmpretrain')

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    'InternImage': {
        'unshared': dict(core_op='DCNv3Unshared', center_feature_scale=True),
        'post-norm': dict(post_norm=True, layer_scale=1.0, dw_kernel_size=3),
    },
    'InternImageWithOperator': {
        'attention': dict(operator='Attention'),
        'no-softmax': dict(operator='DCNv3WithoutSoftmax', layer_scale=1.0),
        'softmax': dict(operator='DCNv4WithSoftmax', dw_kernel_size=3),
    },
    'FlashInternImage': {'batch-norm': dict(norm_layer='BN', act_layer='SiLU')},
    'PlainViT': {
        'decomposed': dict(rel_pos='decomposed', conv_blocks=(0, 3)),
        'none': dict(rel_pos='none', out_type='last', layer_scale=0.1),
    },
    'RoadmapResNet': {'resnet': dict(step=0), 'depthwise': dict(step=7, pool=True)},
    'IsotropicConvNeXt': {'maps': dict(gap_before_final_norm=False)},
    'DeformableConvNeXt': {'maps': dict(gap_before_final_norm=False, dw_kernel_size=3)},
    'DeformableVisionTransformer': {'mean': dict(out_type='avg_featmap', dw_kernel_size=3)},
}


def registered() -> dict[str, type[nn.Module]]:
    """All backbones of the project, by name."""
    for path in sorted((ROOT / 'mmcls_custom' / 'backbones').glob('*.py')):
        importlib.import_module(f'mmcls_custom.backbones.{path.stem}')
    return {name: kind for name, kind in sorted(MODELS.module_dict.items())
            if kind.__module__.startswith('mmcls_custom.backbones.')}


BACKBONES = registered()
CASES = {name: (kind, {}) for name, kind in BACKBONES.items()} | {
    f'{name}-{variant}': (BACKBONES[name], settings)
    for name, variants in VARIANTS.items() for variant, settings in variants.items()}
SEVERAL_OUTPUTS = [name for name, kind in BACKBONES.items()
                   if name != 'IsotropicConvNeXt'
                   and 'out_indices' in inspect.signature(kind).parameters]
Build = Callable[..., nn.Module]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=list(CASES))
def build(request: pytest.FixtureRequest) -> Build:
    """Function that builds the small model of a backbone, with more settings where given."""
    kind, settings = CASES[request.param]

    def make(**more: Any) -> nn.Module:
        torch.manual_seed(1)
        return awake(kind(arch='pico', **{**settings, **more}))
    return make


def awake(model: nn.Module) -> nn.Module:
    """Values that no zero or one hides: offsets, masks, layer scales and norms included."""
    with torch.no_grad():
        for param in model.parameters():
            noise = torch.randn_like(param)
            param.add_(0.1 * noise if param.ndim < 2 else 0.3 * noise / param[0].numel() ** 0.5)
    return model


def image(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(*size, dtype=dtype)


def loss_of(outs: tuple[Tensor, ...]) -> Tensor:
    """A number on which every output element has an influence of its own."""
    torch.manual_seed(3)
    return sum((out.float() * torch.randn(out.shape)).sum() / out.numel() for out in outs)


def test_all_kinds_of_the_house_are_found() -> None:
    assert {'InternImage', 'FlashInternImage', 'PlainViT', 'RoadmapResNet', 'IsotropicConvNeXt',
            'DeformableConvNeXt', 'DeformableVisionTransformer'} <= set(BACKBONES)
    assert set(VARIANTS) <= set(BACKBONES)


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain'])
def test_name_resolves_to_the_class(name: str, scope: str) -> None:
    with DefaultScope.overwrite_default_scope(scope):
        assert MODELS.get(name) is BACKBONES[name]


@pytest.mark.parametrize('size', [(64, 96), (45, 61), (33, 70)])
def test_forward_takes_odd_sizes(build: Build, size: tuple[int, int]) -> None:
    outs = build().eval()(image(2, 3, *size))
    assert isinstance(outs, tuple) and outs
    for out in outs:
        assert out.ndim in (2, 4) and out.shape[0] == 2 and out.dtype == torch.float32
        assert out.isfinite().all() and out.std() > 0


def test_gradients_reach_every_parameter(build: Build) -> None:
    model = build().train()
    loss_of(model(image(2, 3, 64, 64))).backward()
    for name, param in model.named_parameters():
        assert param.grad is not None and param.grad.isfinite().all(), name
        assert param.grad.abs().sum() > 0, name


@pytest.mark.parametrize('name', SEVERAL_OUTPUTS)
def test_out_indices_pick_outputs(name: str) -> None:
    x = image(1, 3, 64, 64)
    both = awake(BACKBONES[name](arch='pico', out_indices=(0, 1))).eval()
    second = BACKBONES[name](arch='pico', out_indices=(1,)).eval()
    assert not second.load_state_dict(both.state_dict(), strict=False).missing_keys
    (_, expected), (got,) = both(x), second(x)
    assert torch.equal(got, expected)


@pytest.mark.parametrize('name', [*SEVERAL_OUTPUTS, 'IsotropicConvNeXt'])
@pytest.mark.parametrize('indices', [(), (99,), (-99,)])
def test_out_indices_out_of_bounds(name: str, indices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match='out_indices is not valid: got'):
        BACKBONES[name](arch='pico', out_indices=indices)


def test_frozen_stages_freeze_from_the_input(build: Build) -> None:
    free, model = build().train(), build(frozen_stages=1).train()
    assert all(param.requires_grad for param in free.parameters())
    frozen = {name for name, param in model.named_parameters() if not param.requires_grad}
    depths = {name: model.get_layer_depth(name)[0] for name, _ in model.named_parameters()}
    assert frozen and max(depths[name] for name in frozen) >= 1
    trained = depths.keys() - frozen
    # A level that ends in its downsampling shares that layer with the next level's first block.
    # Convolutions across a plain ViT's windows freeze with their block, but train like the heads.
    assert max(depths[name] for name in frozen if '.residual.' not in name) <= min(
        depths[name] for name in trained)
    for name, module in model.named_modules():
        own = {f'{name}.{key}'.lstrip('.') for key, _ in module.named_parameters(recurse=False)}
        if own and module is not model:  # position embeddings belong to the model itself
            assert module.training is not (own <= frozen), name
    before = {name: buffer.clone() for name, buffer in model.named_buffers()
              if 'running' in name and f'{name.rpartition(".")[0]}.weight' in frozen}
    loss_of(model(image(2, 3, 64, 64))).backward()
    assert all(torch.equal(dict(model.named_buffers())[name], old) for name, old in before.items())
    for name, param in model.named_parameters():
        assert (param.grad is None) is (name in frozen), name


def test_checkpointing_changes_no_gradient(build: Build) -> None:
    grads = []
    for with_cp in (False, True):
        model = build(with_cp=with_cp, drop_path_rate=0.3).train()
        torch.manual_seed(4)
        loss_of(model(image(2, 3, 48, 40))).backward()
        grads.append({name: param.grad for name, param in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-5, atol=1e-6)


def test_checkpointing_runs_blocks_twice(build: Build) -> None:
    counts = []
    for with_cp in (False, True):
        model = build(with_cp=with_cp).train()
        calls = []
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        loss_of(model(image(2, 3, 48, 40).requires_grad_())).backward()
        counts.append(len(calls))
    assert counts[0] < counts[1] <= 2 * counts[0]


def test_layer_depth_is_total(build: Build) -> None:
    model = build()
    names = [name for name, _ in model.named_parameters()]
    depths = [model.get_layer_depth(f'backbone.{name}', 'backbone.') for name in names]
    (num_layers,) = {count for _, count in depths}
    layers = {layer for layer, _ in depths}
    assert layers <= set(range(num_layers)) and {0, 1} <= layers
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (num_layers - 1, num_layers)
    assert depths == [model.get_layer_depth(name) for name in names]
    by_name = dict(zip(names, (layer for layer, _ in depths), strict=True))
    for name, layer in by_name.items():  # weight and bias of a layer share its rate
        other = name.replace('.weight', '.bias')
        assert by_name.get(other, layer) == layer


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
                         ids=['deepcopy', 'pickle'])
def test_copies_give_the_same_features(build: Build, copied: Callable) -> None:
    model = build().eval()
    x = image(1, 3, 40, 56)
    for got, expected in zip(copied(model)(x), model(x), strict=True):
        assert torch.equal(got, expected)


def test_batch_equals_single_images(build: Build) -> None:
    # Bit equality ends at torch's convolutions and matrix products, which block by batch size;
    # that of the operators is tested beside them.
    model = build().eval().double()
    images = image(3, 3, 45, 61, dtype=torch.float64)
    with torch.no_grad():
        batch = model(images)
        for i in range(len(images)):
            for got, expected in zip(batch, model(images[i:i + 1]), strict=True):
                torch.testing.assert_close(got[i:i + 1], expected, rtol=1e-11, atol=1e-11)


def test_bfloat16_autocast_trains(build: Build) -> None:
    model = build().train()
    x = image(2, 3, 64, 64)
    expected = [out.detach() for out in model(x)]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outs = model(x)
    loss_of(outs).backward()
    for got, full in zip(outs, expected, strict=True):
        assert (got.float() - full).abs().mean() < 0.1 * full.abs().mean()
    assert all(param.grad.isfinite().all() for param in model.parameters())


def test_pretrained_init_loads_the_file(build: Build, tmp_path: Any) -> None:
    saved = build()
    torch.save(dict(state_dict=saved.state_dict()), tmp_path / 'weights.pth')
    model = build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    with torch.no_grad():
        for param in model.parameters():
            param.zero_()
    model.init_weights()
    for name, value in saved.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_eval_and_train_return_the_model(build: Build) -> None:
    model = build()
    assert model.eval() is model and not model.training
    assert model.train() is model and model.training
