"""mmengine's ways to a checkpoint all go through the safe reader."""
from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn

from mmdcn.checkpoints import (
    CheckpointError,
    UnsafeCheckpointError,
    loading_policy,
    openmmlab,
    save_checkpoint,
)


class Harmful:
    """Pickles as a call that makes a folder."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


class Small(BaseModule):
    def __init__(self, **init) -> None:
        super().__init__(dict(type='Pretrained', **init))
        self.layer = nn.Linear(2, 3)


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.fixture
def harmful(tmp_path):
    """Name of a file that makes a folder beside itself when it is unpickled freely."""
    weights = {'layer.weight': torch.ones(3, 2), 'layer.bias': torch.ones(3)}
    torch.save({'state_dict': weights, 'x': Harmful(tmp_path / 'made')}, tmp_path / 'evil.pth')
    return str(tmp_path / 'evil.pth')


@pytest.mark.parametrize('reach', [
    lambda file: Small(checkpoint=file).init_weights(),
    lambda file: CheckpointLoader.load_checkpoint(file),
    lambda file: load_checkpoint(nn.Linear(2, 3), file),
    lambda file: mmengine_checkpoint._load_checkpoint(file),
    lambda file: mmengine_checkpoint._safe_torch_load(file),
    lambda file: mmengine_checkpoint._safe_torch_load(io.BytesIO(Path(file).read_bytes())),
], ids=['init_cfg', 'loader', 'load_checkpoint', '_load_checkpoint', 'file', 'buffer'])
def test_no_way_runs_code(harmful, tmp_path, reach):
    with pytest.raises(UnsafeCheckpointError, match=r'mkdir.*not executed'):
        reach(harmful)
    assert not (tmp_path / 'made').exists()
    with loading_policy(trust=True):
        reach(harmful)
    assert (tmp_path / 'made').is_dir()


def test_init_cfg_fills_the_module(tmp_path):
    path = str(tmp_path / 'a.safetensors')
    weights = {'layer.weight': torch.randn(3, 2), 'layer.bias': torch.randn(3)}
    save_checkpoint(path, {f'part.{key}': value for key, value in weights.items()})
    target = Small(checkpoint=path, prefix='part.')
    target.init_weights()
    assert all(torch.equal(target.state_dict()[key], value) for key, value in weights.items())
    with pytest.raises(CheckpointError, match="prefix is not valid: got 'other.'"):
        Small(checkpoint=path, prefix='other.').init_weights()


def test_mmengine_reads_the_same_way(tmp_path):
    save_checkpoint(tmp_path / 'a.safetensors', model().state_dict())
    target = model()
    load_checkpoint(target, str(tmp_path / 'a.safetensors'), strict=True)
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.safetensors'))
    assert torch.equal(target[0].weight, read['state_dict']['0.weight'])


@pytest.mark.parametrize('address', ['https://mmdcn.invalid/a.pth', 'torchvision://made'])
def test_downloads_are_read_the_same_way(tmp_path, monkeypatch, address):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr('mmengine.runner.checkpoint.get_torchvision_models',
                        lambda: {'made': 'https://mmdcn.invalid/a.pth'})
    cache = tmp_path / 'checkpoints'
    fetched = []

    def fetch(url, file, *args, **kwargs):
        fetched.append(url)
        torch.save(content, file)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    content = {'model': {'a': torch.ones(1)}}
    for _ in range(2):
        assert CheckpointLoader.load_checkpoint(address)['state_dict']['a'] == 1
    assert fetched == ['https://mmdcn.invalid/a.pth']
    torch.save({'a': nn.Linear(2, 2)}, cache / 'a.pth')
    with pytest.raises(CheckpointError, match='not executed'):
        CheckpointLoader.load_checkpoint(address)
    (cache / 'a.pth').unlink()

    def fail(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fail)
    with pytest.raises(CheckpointError, match='no network.*download it by hand'):
        CheckpointLoader.load_checkpoint(address)


def test_a_failed_download_names_address_folder_and_reason(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError('timed out')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fail)
    url = 'https://mmdcn.invalid/models/a.pth?raw=1'
    with pytest.raises(CheckpointError) as caught:
        openmmlab._download(url, str(tmp_path / 'cache'))
    assert str(caught.value) == (
        f'checkpoint is not valid: {url} cannot be downloaded to {tmp_path / "cache"} '
        '(timed out); download it by hand and name the file')
    save_checkpoint(tmp_path / 'cache' / 'a.pth', {'a': torch.ones(1)})
    assert openmmlab._download(url, str(tmp_path / 'cache'))['state_dict']['a'] == 1
