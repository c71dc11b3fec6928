"""The benchmark of the backbones, at a size for tests."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import bench_backbone


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


def _no_timm(name: str) -> None:
    raise ImportError(name)
