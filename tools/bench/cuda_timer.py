"""Times calls on a CUDA device by events, with a cold and with a warm L2 cache."""
from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

# Work that keeps the device busy while the host queues the call, in clock cycles: otherwise
# Python's pace is measured.
_QUEUE_CYCLES = 1_500_000


class CudaTimer:
    """Medians of single calls.

    *Cold*: before each call more than twice the L2 cache is overwritten. *Warm*: the same call has
    just run, and what fits into the cache is there.
    """

    def __init__(self, repetitions: int) -> None:
        self.repetitions = repetitions
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        size = max(4 * getattr(properties, 'L2_cache_size', 0), 256 << 20)
        self._flush = torch.empty(size, dtype=torch.uint8, device='cuda')

    def seconds(self, call: Callable[[], Any], cold: bool) -> float:
        """Median seconds of one call."""
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        pairs = []
        for _ in range(self.repetitions):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            if cold:
                self._flush.zero_()
            torch.cuda._sleep(_QUEUE_CYCLES)
            begin.record()
            call()
            end.record()
            pairs.append((begin, end))
            if len(pairs) % 10 == 0:
                torch.cuda.synchronize()
        torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in pairs) * 1e-3

    def copy_speed(self) -> float:
        """Bytes per second, read and written, of a large copy."""
        source = torch.empty(512 << 20, dtype=torch.uint8, device='cuda')
        target = torch.empty_like(source)
        return 2 * source.numel() / self.seconds(lambda: target.copy_(source), cold=True)


def peak_bytes(call: Callable[[], Any]) -> int:
    """Memory that a call has at once, beyond what was there before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before
