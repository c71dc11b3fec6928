"""Starts the process group of a distributed run, on GPUs or on CPUs."""
from __future__ import annotations

import os
import subprocess
from datetime import timedelta

import torch
from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed
from torch import distributed as torch_dist

from mmdcn.errors import UserError

_NEEDED = {
    'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
}
_REMEDY = {
    'pytorch': 'start through tools/dist_train.sh, tools/dist_test.sh or torchrun',
    'slurm': 'start through tools/slurm_train.sh, tools/slurm_test.sh or srun',
}


def start_launcher(launcher: str, cfg: Config) -> None:
    """Join the process group that a launcher prepared; nothing to do for ``none``.

    Without a GPU the backend is gloo, whatever the config says.

    Raises:
        UserError: The launcher's environment variables are missing.
    """
    cfg.launcher = launcher
    if launcher == 'none' or is_distributed():
        return
    absent = [name for name in _NEEDED[launcher] if name not in os.environ]
    if absent:
        raise UserError('launcher', f'got {launcher}',
                        f'the environment variables {", ".join(absent)}', _REMEDY[launcher])
    options = dict(cfg.get('env_cfg', {}).get('dist_cfg', {'backend': 'nccl'}))
    if torch.cuda.is_available():
        init_dist(launcher, **options)
        return
    if launcher == 'slurm':
        _export_slurm(options.get('port'))
    timeout = timedelta(seconds=options.get('timeout', 1800))
    torch_dist.init_process_group('gloo', timeout=timeout)


def _export_slurm(port: int | None) -> None:
    """Translate slurm's variables to those torch reads."""
    env = os.environ
    env['RANK'], env['WORLD_SIZE'] = env['SLURM_PROCID'], env['SLURM_NTASKS']
    env['LOCAL_RANK'] = env.get('SLURM_LOCALID', '0')
    env.setdefault('MASTER_PORT', str(port or 29500))
    if 'MASTER_ADDR' not in env:
        hosts = subprocess.run(['scontrol', 'show', 'hostname', env['SLURM_NODELIST']],
                               capture_output=True, text=True, check=True)
        env['MASTER_ADDR'] = hosts.stdout.split()[0]
