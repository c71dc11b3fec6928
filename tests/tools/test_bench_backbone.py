"""tools/bench_backbone.py on a CPU: what is measured, what is missing, what is refused."""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ops_dcn import DCNv4
from tools import bench_backbone


def _no_timm(name: str) -> None:
    raise ImportError(name)


def test_backbone_benchmark_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(bench_backbone.MODELS, 'flash-internimage-t',
                        lambda size: bench_backbone.FlashInternImage(arch='pico'))
    monkeypatch.setattr(bench_backbone.importlib, 'import_module', _no_timm)
    path = tmp_path / 'speed.json'
    options = ['--device', 'cpu', '--batch', '1', '--size', '32', '--quick', '--no-compile',
               '--train', '--models', 'flash-internimage-t', 'timm swin_tiny']
    assert bench_backbone.main([*options, '--json', str(path)]) == 0
    assert 'timm is not installed' in capsys.readouterr().out
    record, missing = json.loads(path.read_text())['records']
    assert record['eager_images_per_s'] > 0
    assert 'missing' in missing


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_without_a_device_it_ends_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_backbone.main(['--device', 'cuda']) == 2
    assert 'torch finds no CUDA device' in capsys.readouterr().err


def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(bench_backbone.time, 'perf_counter', lambda: now[0])
    return now


def test_seconds_are_the_median_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    now, left = clock(monkeypatch), iter([4.0, 1.0, 90.0, 2.0, 3.0])

    def run() -> None:
        now[0] += next(left)
    assert bench_backbone.seconds(run, 'cpu', 5) == 3


def test_a_device_is_waited_for_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    diary: list[str] = []
    monkeypatch.setattr(bench_backbone.torch.cuda, 'synchronize', lambda: diary.append('wait'))
    bench_backbone.seconds(lambda: diary.append('run'), 'cuda', 2)
    assert diary == ['wait', 'run', 'wait'] * 2


class Twins(nn.Module):
    """Two feature maps of the same weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.graphs: list[bool] = []

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.weight * images, 3 * self.weight * images
        self.graphs.append(features[0].requires_grad)
        return features


def test_inference_makes_no_graph() -> None:
    model = Twins()
    bench_backbone.step(model, torch.ones(1, 2), train=False)
    assert model.graphs == [False] and model.weight.grad is None


def test_training_steps_reach_all_features_and_do_not_add_up() -> None:
    model = Twins()
    for _ in range(2):
        bench_backbone.step(model, torch.full((1, 2), 5.0), train=True)
        assert model.weight.grad.item() == 5 + 15
    assert model.graphs == [True, True]


def test_models_of_timm_give_the_maps_of_all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    timm = SimpleNamespace(create_model=lambda name, **options: made.append((name, options)))
    monkeypatch.setattr(bench_backbone.importlib, 'import_module', {'timm': timm}.__getitem__)
    for name in ('timm convnext_tiny', 'timm swin_base'):
        bench_backbone.MODELS[name](96)
    assert made == [('convnext_tiny', {'features_only': True}),
                    ('swin_base_patch4_window7_224', {'features_only': True, 'img_size': 96})]


def arguments(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**dict(size=32, batch=6, device='cpu', dtype='float32', train=False,
                                     quick=True, no_compile=True) | changes)


@pytest.fixture
def pico(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Puts a small backbone into the place of a large one; what was built is in the list."""
    made: list[nn.Module] = []

    def build(size: int) -> nn.Module:
        made.append(bench_backbone.FlashInternImage(arch='pico'))
        return made[-1]
    monkeypatch.setitem(bench_backbone.MODELS, 'flash-internimage-t', build)
    return made


def test_images_per_second_by_hand(pico: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_backbone, 'seconds', lambda run, device, repetitions: 0.25)
    record = bench_backbone.measure('flash-internimage-t', arguments())
    assert record['eager_images_per_s'] == 24
    count = sum(parameter.numel() for parameter in pico[0].parameters())
    assert record['parameters_m'] == count / 1e6
    assert 'compiled_images_per_s' not in record


@pytest.mark.parametrize(('quick', 'warm_up', 'repetitions'), [(True, 1, 3), (False, 3, 20)])
def test_warm_up_is_not_measured(pico: list, monkeypatch: pytest.MonkeyPatch, quick: bool,
                                 warm_up: int, repetitions: int) -> None:
    steps, asked = [], []

    def seconds(run: Any, device: str, count: int) -> float:
        asked.append((len(steps), count))
        return 1.0
    monkeypatch.setattr(bench_backbone, 'step', lambda *args: steps.append(args))
    monkeypatch.setattr(bench_backbone, 'seconds', seconds)
    monkeypatch.setattr(bench_backbone.torch, 'compile', lambda model: model)
    record = bench_backbone.measure('flash-internimage-t',
                                    arguments(quick=quick, no_compile=False))
    assert asked == [(warm_up, repetitions), (2 * warm_up, repetitions)]
    assert record['compiled_images_per_s'] == 6
    assert steps[0][1].shape == (6, 3, 32, 32)


@pytest.mark.parametrize('train', [False, True])
def test_projections_are_merged_for_inference_alone(pico: list, train: bool,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    merged: list[DCNv4] = []
    monkeypatch.setattr(DCNv4, 'merge_projections', lambda layer: merged.append(layer))
    bench_backbone.measure('flash-internimage-t', arguments(train=train, batch=1))
    layers = [layer for layer in pico[0].modules() if isinstance(layer, DCNv4)]
    assert layers and merged == ([] if train else layers)
    assert pico[0].training == train


@pytest.mark.parametrize(('options', 'words'), [
    (['--batch', '0'], 'batch is not valid: got 0'),
    (['--size', '-3'], 'size is not valid: got -3'),
    (['--json', f'{__file__}/x.json'], f'json is not valid: {__file__} is a file')])
def test_options_that_cannot_be_met(options: list[str], words: str, pico: list,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_backbone.main(['--device', 'cpu', *options]) == 2
    assert words in capsys.readouterr().err
    assert not pico


def test_lines_say_what_is_missing_and_what_was_measured(
        capsys: pytest.CaptureFixture[str]) -> None:
    bench_backbone.print_record({'model': 'a', 'missing': 'timm is not installed'})
    record = {'model': 'b', 'parameters_m': 29.96, 'eager_images_per_s': 123.456,
              'eager_warmup_s': 1.6}
    bench_backbone.print_record(record)
    bench_backbone.print_record(record | {'compiled_images_per_s': 7, 'compiled_warmup_s': 80})
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.split(None, 1) == ['a', 'timm is not installed']
    assert ' '.join(second.split()) == 'b 30.0 M eager 123.46 images/s (warm-up 2 s)'
    assert third.startswith(second) and 'compiled      7.00 images/s (warm-up 80 s)' in third
