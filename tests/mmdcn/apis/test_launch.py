"""Starting distributed runs, as far as one process can show it."""
from __future__ import annotations

import pytest
from mmengine.config import Config

from mmdcn.apis import launch
from mmdcn.errors import UserError


def test_nothing_to_start():
    cfg = Config({})
    launch.start_launcher('none', cfg)
    assert cfg.launcher == 'none'


def test_slurm_variables_become_those_of_torch(monkeypatch, tmp_path):
    (tmp_path / 'scontrol').write_text('#!/bin/sh\necho node7\necho node8\n')
    (tmp_path / 'scontrol').chmod(0o755)
    monkeypatch.setattr(launch.os, 'environ', {
        'PATH': f'{tmp_path}:/bin:/usr/bin', 'SLURM_PROCID': '3', 'SLURM_NTASKS': '4',
        'SLURM_NODELIST': 'node[7-8]', 'SLURM_LOCALID': '1'})
    monkeypatch.setenv('PATH', f'{tmp_path}:/bin:/usr/bin')
    launch._export_slurm(29411)
    env = launch.os.environ
    assert (env['RANK'], env['WORLD_SIZE'], env['LOCAL_RANK']) == ('3', '4', '1')
    assert (env['MASTER_ADDR'], env['MASTER_PORT']) == ('node7', '29411')


def test_cpu_group_uses_gloo(monkeypatch):
    for name, value in (('RANK', '0'), ('LOCAL_RANK', '0'), ('WORLD_SIZE', '1'),
                        ('MASTER_ADDR', '127.0.0.1'), ('MASTER_PORT', '29618')):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch.torch.cuda, 'is_available', lambda: False)
    launch.start_launcher('pytorch', Config({'env_cfg': {'dist_cfg': {'backend': 'nccl'}}}))
    try:
        assert launch.torch_dist.get_backend() == 'gloo'
    finally:
        launch.torch_dist.destroy_process_group()


def test_missing_variables_are_named(monkeypatch):
    monkeypatch.delenv('SLURM_NTASKS', raising=False)
    with pytest.raises(UserError, match='SLURM_NTASKS.*srun'):
        launch.start_launcher('slurm', Config({}))
