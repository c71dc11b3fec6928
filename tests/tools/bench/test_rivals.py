"""Other implementations: found or absent, called as they were published, true to their names."""
from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tools.bench import rivals


def test_window_attention_covers_every_pixel() -> None:
    layer = rivals._Attention(32, window=7)
    image = torch.randn(1, 9, 8, 32, requires_grad=True)
    layer(image).sum().backward()
    assert layer(image).shape == image.shape
    assert image.grad.abs().sum(-1).gt(0).all()


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package of others can be imported."""
    def refuse(module: str) -> None:
        raise ImportError(module)
    monkeypatch.setattr(rivals.importlib, 'import_module', refuse)


def install(monkeypatch: pytest.MonkeyPatch, module: str, **names: Any) -> None:
    """Let a module of these names be there."""
    made = ModuleType(module)
    made.__dict__.update(names)
    monkeypatch.setitem(sys.modules, module.partition('.')[0], ModuleType(module))
    monkeypatch.setitem(sys.modules, module, made)


@pytest.mark.parametrize('body', ['raise OSError("undefined symbol")', 'import no_such_package',
                                  'x = 1 / 0', 'this is no Python', 'other = 1'])
def test_packages_that_fail_in_any_way_are_absent(tmp_path: Path, body: str,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'rival_that_fails.py').write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'rival_that_fails', raising=False)
    assert rivals.find('rival_that_fails', 'name') is None


def test_names_of_modules_are_found() -> None:
    assert rivals.find('torch.nn', 'Linear') is nn.Linear


@pytest.mark.parametrize('op', ['dcnv3', 'dcnv4', 'ms_deform_attn', 'flash_deform_attn'])
def test_without_packages_there_is_nobody(nothing: None, op: str) -> None:
    assert rivals.of_operator(op, 4, 16) == {}


def test_layers_of_torch_need_no_package(nothing: None) -> None:
    assert list(rivals.module_rivals(32)) == ['attention (SDPA)', 'window attention 7x7',
                                              'depthwise 7x7']


class Published:
    """``apply`` of the published DCNv3 and DCNv4, as far as its arguments after the tensors."""

    @staticmethod
    def apply(*arguments: Any) -> dict[str, Any]:
        tensors = [word for word in arguments if isinstance(word, str)]
        names = ('kernel_h', 'kernel_w', 'stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h',
                 'dilation_w', 'group', 'group_channels', 'offset_scale', 'im2col_step',
                 'remove_center')
        return dict(zip(names, arguments[len(tensors):], strict=True)) | {'tensors': tensors}


@pytest.mark.parametrize(('module', 'op', 'title', 'tensors'), [
    ('DCNv4.functions', 'dcnv4', 'published DCNv4', ['value', 'packed']),
    ('DCNv3.functions', 'dcnv3', 'published DCNv3', ['value', 'offset', 'mask']),
    ('ops_dcnv3.functions', 'dcnv3', 'published DCNv3', ['value', 'offset', 'mask'])])
def test_published_operators_get_our_geometry(nothing: None, monkeypatch: pytest.MonkeyPatch,
                                              module: str, op: str, title: str,
                                              tensors: list[str]) -> None:
    names = {module: ModuleType(module)}
    setattr(names[module], f'DCNv{op[-1]}Function', Published)
    monkeypatch.setattr(rivals.importlib, 'import_module', names.__getitem__)
    call, = rivals.of_operator(op, groups=6, depth=16).values()
    assert list(rivals.of_operator(op, 6, 16)) == [title]
    got = call(*tensors)
    assert got['tensors'] == tensors
    assert (got['group'], got['group_channels'], got['offset_scale']) == (6, 16, 1.0)
    assert (got['kernel_h'], got['kernel_w'], got['remove_center']) == (3, 3, 0)
    for axis in 'hw':
        assert [got[f'{name}_{axis}'] for name in ('stride', 'pad', 'dilation')] == [1, 1, 1]


def test_all_forks_of_an_operator_stand_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, 'DCNv4.functions', DCNv4Function=Published)
    install(monkeypatch, 'deformops.registry', attn=lambda *tensors, **options: options,
            msda=lambda *tensors: 'msda')
    calls = rivals.of_operator('dcnv4', 3, 32)
    assert list(calls) == ['published DCNv4', 'deformops']
    assert calls['deformops']('v', 'p') == {'kernel_size': 3, 'groups': 3, 'group_dims': 32}
    assert rivals.of_operator('ms_deform_attn', 3, 32)['deformops']() == 'msda'


@pytest.mark.parametrize('size', [(1, 9, 8), (2, 5, 7), (1, 14, 14), (1, 1, 1)])
def test_layers_keep_the_shape(size: tuple[int, int, int]) -> None:
    image = torch.randn(*size, 32)
    for name, layer in rivals.module_rivals(32).items():
        with torch.no_grad():
            assert layer(image).shape == image.shape, name


def test_a_window_as_large_as_the_image_is_attention_over_all_pixels() -> None:
    image = torch.randn(2, 7, 7, 64)
    window, whole = rivals._Attention(64, window=7), rivals._Attention(64)
    whole.load_state_dict(window.state_dict())
    torch.testing.assert_close(window(image), whole(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('layer', 'touched'), [
    (rivals._Attention(32), (slice(None), slice(None))),
    # Rows 7..13 and columns 0..6 are the window of the changed pixel.
    (rivals._Attention(32, window=7), (slice(7, 14), slice(0, 7))),
    (rivals._Depthwise(32), (slice(6, 13), slice(1, 8)))], ids=['all', 'window', 'depthwise'])
def test_reach_of_one_pixel(layer: nn.Module, touched: tuple[slice, slice]) -> None:
    image = torch.randn(1, 17, 12, 32)
    with torch.no_grad():
        before = layer(image)
        image[0, 9, 4] += 5
        changed = (layer(image) - before).abs().sum(-1)[0] > 0
    expected = torch.zeros(17, 12, dtype=torch.bool)
    expected[touched] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize('name', ['torchvision deform_conv2d', 'mmcv modulated_deform_conv2d'])
def test_deformable_convolutions_without_offsets_are_plain_ones(name: str) -> None:
    layers = rivals.module_rivals(16)
    if name not in layers:
        pytest.skip(f'{name} is not installed')
    layer = layers[name]
    for part in layer.offset.parameters():
        nn.init.zeros_(part)
    image = torch.randn(2, 6, 5, 16)
    # Masks are sigmoid(0).
    expected = 0.5 * F.conv2d(image.permute(0, 3, 1, 2), layer.weight, padding=1)
    torch.testing.assert_close(layer(image), expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
