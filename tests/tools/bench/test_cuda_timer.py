"""Timing on CUDA, with a device that keeps a clock and a diary."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tools.bench import cuda_timer


class Memory:
    """Bytes on the device."""

    def __init__(self, device: Device, size: int) -> None:
        self.device, self.size = device, size

    def numel(self) -> int:
        return self.size

    def zero_(self) -> None:
        self.device.work('flush', 0.5)

    def copy_(self, other: Memory) -> None:
        self.device.work('copy', 0.25)


class Event:
    """A mark in the device's time."""

    def record(self) -> None:
        Event.device.diary.append('event')
        self.at = Event.device.now

    def elapsed_time(self, other: Event) -> float:
        return 1e3 * (other.at - self.at)


class Device:
    """A device whose time passes only when it works, in seconds."""

    def __init__(self, cache: int | None) -> None:
        self.now, self.diary, self.sizes = 0.0, [], []
        properties = SimpleNamespace(**({} if cache is None else {'L2_cache_size': cache}))
        self.allocated = self.peak = 0
        Event.device = self
        self.cuda = SimpleNamespace(
            current_device=lambda: 0, get_device_properties=lambda index: properties,
            synchronize=lambda: self.diary.append('wait'),
            Event=lambda enable_timing: Event() if enable_timing else None,
            _sleep=lambda cycles: self.work('sleep', 7.0),
            memory_allocated=lambda: self.allocated, max_memory_allocated=lambda: self.peak,
            reset_peak_memory_stats=lambda: setattr(self, 'peak', self.allocated))
        self.uint8 = torch.uint8

    def work(self, what: str, seconds: float) -> None:
        self.diary.append(what)
        self.now += seconds

    def empty(self, size: int, dtype: Any, device: str) -> Memory:
        assert (dtype, device) == (torch.uint8, 'cuda')
        self.sizes.append(size)
        return Memory(self, size)

    def empty_like(self, other: Memory) -> Memory:
        return Memory(self, other.size)

    def allocate(self, size: int) -> None:
        self.allocated += size
        self.peak = max(self.peak, self.allocated)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Device]:
    def make(cache: int | None = 50 << 20) -> Device:
        made = Device(cache)
        monkeypatch.setattr(cuda_timer, 'torch', made)
        return made
    return make


def calls(device: Device, seconds: list[float]) -> Callable[[], None]:
    """A call whose first runs, to warm up, take nine seconds."""
    left: Iterator[float] = iter([9.0] * 3 + seconds)
    return lambda: device.work('call', next(left))


@pytest.mark.parametrize('cold', [True, False])
def test_median_of_single_calls_without_what_goes_before(device: Callable[..., Device],
                                                         cold: bool) -> None:
    made = device()
    timer = cuda_timer.CudaTimer(5)
    assert timer.seconds(calls(made, [2, 1, 2, 60, 1]), cold) == pytest.approx(2)


def test_cold_calls_find_a_cache_of_other_things(device: Callable[..., Device]) -> None:
    made = device()
    timer = cuda_timer.CudaTimer(2)
    for cold, flush in ((True, ['flush']), (False, [])):
        made.diary.clear()
        timer.seconds(calls(made, [1, 1]), cold)
        once = [*flush, 'sleep', 'event', 'call', 'event']
        assert made.diary == ['call'] * 3 + ['wait'] + once * 2 + ['wait']


@pytest.mark.parametrize(('cache', 'size'), [
    (100 << 20, 400 << 20), (4 << 20, 256 << 20), (None, 256 << 20)])
def test_more_than_twice_the_cache_is_overwritten(device: Callable[..., Device],
                                                  cache: int | None, size: int) -> None:
    made = device(cache)
    cuda_timer.CudaTimer(1)
    assert made.sizes == [size] and size > 2 * (cache or 0)


def test_the_queue_is_emptied_every_ten_calls(device: Callable[..., Device]) -> None:
    made = device()
    cuda_timer.CudaTimer(25).seconds(calls(made, [1.0] * 25), cold=False)
    waits = [i for i, what in enumerate(made.diary) if what == 'wait']
    done = [made.diary[:i].count('call') - 3 for i in waits]
    assert done == [0, 10, 20, 25]


def test_a_copy_reads_and_writes(device: Callable[..., Device]) -> None:
    device()
    # 512 MiB each way in a quarter of a second.
    assert cuda_timer.CudaTimer(3).copy_speed() == pytest.approx(2 * (512 << 20) / 0.25)


def test_peak_is_beyond_what_was_there(device: Callable[..., Device]) -> None:
    made = device()
    made.allocate(1000)
    made.allocate(5000)
    made.allocated -= 5000  # an older peak does not count

    def call() -> None:
        made.allocate(300)
        made.allocate(200)
        made.allocated -= 450
    assert cuda_timer.peak_bytes(call) == 500
