"""What frameworks raise during a run becomes one message; each is caused for real."""
from __future__ import annotations

import errno
import os
import signal

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from mmdcn.engine.build_errors import readable_errors
from mmdcn.engine.run_errors import explain_run_error
from mmdcn.engine.runner import CheckedRunner
from mmdcn.errors import UserError


class Dies(Dataset):
    """Kills the process that reads it."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def full():
    raise OSError(errno.ENOSPC, 'No space left on device', 'work/a.json')


def incomplete():
    CheckedRunner(nn.Identity(), 'work', train_cfg=dict(by_epoch=True))


CAUSES = [
    (lambda: nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1)),
     r'batch is not valid: .*single value per channel \(torch.Size\(\[1, 3, 1, 1\]\)\).*_size'),
    (lambda: nn.Conv2d(4, 8, 1)(torch.zeros(1, 3, 2, 2)),
     r'a convolution with weights \[8, 4, 1, 1\] got an input \[1, 3, 2, 2\], expected 4 channels'),
    (lambda: nn.Linear(4, 8)(torch.zeros(1, 3)), r'a linear layer 4x8 got an input 1x3'),
    (lambda: torch.stack([torch.zeros(2, 3), torch.zeros(2, 4)]),
     r'batch is not valid: .*sizes \[2, 3\] and \[2, 4\], expected one size'),
    (lambda: F.cross_entropy(torch.zeros(1, 3), torch.tensor([9])),
     r'label is not valid: got the class number 9'),
    (lambda: torch.empty(1 << 55), r'memory is not valid: .*lower batch_size'),
    (lambda: next(iter(DataLoader(Dies(), num_workers=1))),
     r'num_workers is not valid: .*.*(killed|exited).*shm-size'),
    (full, r'disk is not valid: work/a\.json: No space left on device; free space'),
    (incomplete, r'only some of train_dataloader, train_cfg and optim_wrapper'),
]


@pytest.mark.parametrize(('cause', 'words'), CAUSES)
def test_known_errors_are_one_message(cause, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words), readable_errors(Config({})):
        cause()


@pytest.mark.parametrize(('error', 'words'), [
    (torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.'), 'memory is not'),
    (RuntimeError('CUDA error: device-side assert triggered\nCUDA kernel'), 'num_classes'),
    (RuntimeError('Expected to have finished reduction in the prior iteration before'),
     'find_unused_parameters=True'),
    (OSError(errno.EMFILE, 'Too many open files'), 'ulimit -n'),
])
def test_errors_of_machines_that_are_not_at_hand(error, words):
    assert words in str(explain_run_error(error))


@pytest.mark.parametrize('error', [
    ValueError('Target 9 is out of bounds'), RuntimeError('something else'), OSError('no number'),
    FileNotFoundError(errno.ENOENT, 'No such file', 'a'),
])
def test_others_are_not_explained(error):
    assert explain_run_error(error) is None
