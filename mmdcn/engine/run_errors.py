"""What a config, its data or the machine makes frameworks raise during a run, as one message."""
from __future__ import annotations

import errno
import re

import torch

from mmdcn.errors import UserError

_IN_CHANNELS = "make in_channels of the neck or head the numbers of the backbone's outputs"
_SMALLER = ('lower batch_size of the data loader or the size of the images, use mixed precision '
            '(`amp=True`), or with_cp=True of the backbone')
# (kind, pattern of the text, name, what was found with the groups of the pattern, expected, remedy)
_KNOWN: list[tuple[type[Exception], str, str, str, str, str]] = [
    (ValueError, r'(\w+_dataloader), (\w+), and (\w+) should be either all None', 'config',
     'it has only some of {0}, {1} and {2}', 'all three or none',
     'add what is missing, or set all of them to None'),
    (ValueError, r'Expected more than 1 value per channel when training, got input size (.*)',
     'batch', 'batch normalisation got a single value per channel ({0})', 'several',
     'raise train_dataloader.batch_size to at least 2 for each process, drop a smaller last batch '
     '(train_dataloader.drop_last=True), or use a norm that needs no batch (GN, LN)'),
    (RuntimeError, r'weight of size (\[.*?\]), expected input(\[.*?\]) to have (\d+) channels',
     'model', 'a convolution with weights {0} got an input {1}', '{2} channels', _IN_CHANNELS),
    (RuntimeError, r'mat1 and mat2 shapes cannot be multiplied \((\S+) and (\S+)\)', 'model',
     'a linear layer {1} got an input {0}', 'its number of features', _IN_CHANNELS),
    (RuntimeError, r'stack expects each tensor to be equal size, but got (.*?) at entry 0 and '
     r'(.*?) at', 'batch', 'samples of one batch have the sizes {0} and {1}', 'one size',
     'end the pipeline with a Resize without keep_ratio, a RandomCrop with padding or a Pad to one '
     'size, or set batch_size=1'),
    (IndexError, r'Target (-?\d+) is out of bounds', 'label',
     'got the class number {0}, which no output of the head stands for', 'below its num_classes',
     "set num_classes of the head to the data set's, or correct the labels"),
    (RuntimeError, r'device-side assert triggered', 'label',
     'the GPU met an index out of range, most often a class number that the head does not have',
     'class numbers below num_classes', 'compare num_classes with the data set; a run without a '
     'GPU (CUDA_VISIBLE_DEVICES=) names the place'),
    (torch.OutOfMemoryError, r'(?s)(.*?)\n|\Z', 'memory', 'the GPU has not enough of it', '',
     _SMALLER),
    (RuntimeError, r"(can't allocate memory: you tried to allocate \d+ bytes)", 'memory',
     'the machine has not enough of it ({0})', '', _SMALLER),
    (RuntimeError, r'DataLoader worker \(pid\(?s?\)? ?[\d, ]+\) (is killed by signal|exited '
     r'unexpectedly)', 'num_workers', 'a process that loads data died ({0})', '',
     'most often memory ran out: lower num_workers of the data loader; in a container raise its '
     'shared memory (shm-size of docker run). num_workers=0 shows an error of the loading'),
    (RuntimeError, r'Expected to have finished reduction in the prior iteration', 'model',
     'some of its parameters took no part in the loss', 'all in a distributed run',
     'set find_unused_parameters=True in the config, or freeze or remove the unused ones'),
]
_DISK = {
    errno.ENOSPC: 'free space', errno.EDQUOT: 'free space within the quota',
    errno.EROFS: 'choose another folder', errno.EFBIG: 'choose another file system',
    errno.EMFILE: 'raise the limit (ulimit -n 65536) or lower num_workers of the data loaders',
}


def explain_run_error(error: Exception) -> UserError | None:
    """A readable form of what a framework raised, or None where it is not known."""
    if isinstance(error, OSError) and error.errno in _DISK:
        where = f'{error.filename}: ' if error.filename else ''
        return UserError('disk', f'{where}{error.strerror}', remedy=f'{_DISK[error.errno]} and run '
                         'it again, a training with `resume`: every file there is whole')
    text = str(error)
    for kind, pattern, name, found, expected, remedy in _KNOWN:
        match = re.search(pattern, text) if isinstance(error, kind) else None
        if match:
            return UserError(name, found.format(*match.groups()),
                             expected.format(*match.groups()), remedy)
    return None
