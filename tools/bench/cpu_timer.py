"""What the benchmarks on a CPU share: the levels of one image, timing, progress, their options."""
from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from mmdcn.apis.results import check_outputs
from mmdcn.errors import UserError

# (height, width) of the levels of an image of 800 x 1333 at strides 8 to 64: 22,223 pixels.
LEVELS = ((100, 167), (50, 84), (25, 42), (13, 21))


def check_options(args: argparse.Namespace) -> None:
    """Raise UserError for numbers of threads, or files to write, that are not possible."""
    if min(args.threads) < 1:
        raise UserError('threads', f'got {args.threads}', 'numbers >= 1')
    check_outputs({name: getattr(args, name, None) for name in ('json', 'plot')})


def timed(call: Callable[[], Any], repeats: int) -> float:
    """Median seconds of `repeats` calls, each timed alone."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def set_threads(threads: int) -> None:
    """Set the number of threads, and wake them, so that starting them is not measured."""
    torch.set_num_threads(threads)
    torch.ones(1 << 20).add_(1)


def report(text: str) -> None:
    """Write progress."""
    sys.stderr.write(text)
    sys.stderr.flush()
