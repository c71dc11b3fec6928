"""Bounds by memory and by L1, computed by hand."""
from __future__ import annotations

import pytest
import torch

from tools.bench import limits

H100 = limits.device_of('NVIDIA H100 80GB HBM3', 0, 0, 0)


# Megabytes and microseconds by hand: value + offsets and mask (padded to 8) + output.
@pytest.mark.parametrize(('shape', 'forward_mb', 'forward_us', 'backward_mb', 'l1_us'), [
    ((64, 56, 56, 4, 16), 96.3, 32.1, 167.0, 31.2),
    ((64, 7, 7, 32, 16), 11.8, 3.9, 20.5, 3.9),
    ((1, 200, 320, 4, 16), 30.7, 10.2, 53.2, 9.9)])
def test_limits(shape: tuple[int, ...], forward_mb: float, forward_us: float, backward_mb: float,
                l1_us: float) -> None:
    n, h, w, groups, depth = shape
    value = torch.empty(n, h, w, groups * depth, dtype=torch.float16, device='meta')
    packed = torch.empty(n, h, w, -(-27 * groups // 8) * 8, dtype=torch.float16, device='meta')
    sizes = [limits.compulsory_bytes([value, packed], value, direction)
             for direction in ('forward', 'backward')]
    assert [round(size / 1e6, 1) for size in sizes] == [forward_mb, backward_mb]
    gathered = limits.gathered_bytes(n * h * w, 9, groups * depth, torch.float16)
    memory, l1 = limits.seconds(H100, sizes[0], gathered)
    assert round(1e6 * memory, 1) == forward_us
    assert 1e6 * l1 == pytest.approx(l1_us, abs=0.06)


def test_speeds_of_an_unknown_device_are_measured() -> None:
    device = limits.device_of('Some GPU', 1e12, 10, 1e9)
    assert (device.memory, device.l1, device.source) == (1e12, 1.28e12, 'copy')
    assert limits.device_of('NVIDIA A100-SXM4-80GB', 0, 0, 0).memory == 1.75e12


def test_every_tensor_of_numbers_crosses_memory_once() -> None:
    value, output = torch.empty(3, 5), torch.empty(2, 7, dtype=torch.float16)
    levels = torch.empty(4, 2, dtype=torch.int64)
    assert limits.bytes_of([value, output]) == 60 + 28
    # The levels, which are not differentiable, are too few to count.
    assert limits.compulsory_bytes([value, levels], output, 'forward') == 60 + 28
    assert limits.compulsory_bytes([value, levels], output, 'backward') == 2 * 60 + 28


@pytest.mark.parametrize(('dtype', 'size'), [
    (torch.float32, 4), (torch.float16, 2), (torch.bfloat16, 2)])
def test_four_corners_are_gathered_per_point_and_channel(dtype: torch.dtype, size: int) -> None:
    assert limits.gathered_bytes(10, 9, 64, dtype) == 10 * 9 * 4 * 64 * size


@pytest.mark.parametrize(('name', 'memory', 'source'), [
    ('NVIDIA H200', 4.3e12, 'table'), ('NVIDIA H100 80GB HBM3', 3.0e12, 'table'),
    ('NVIDIA A100-SXM4-40GB', 1.55e12, 'table'), ('NVIDIA A100 80GB PCIe', 1.75e12, 'table'),
    # The same chip with a slower memory: measured, not taken for the fast one.
    ('NVIDIA H100 PCIe', 7e11, 'copy'), ('NVIDIA A10', 7e11, 'copy')])
def test_known_devices_by_name(name: str, memory: float, source: str) -> None:
    device = limits.device_of(name, 7e11, 10, 1e9)
    assert (device.name, device.memory, device.source) == (name, memory, source)


def test_l1_is_that_of_all_multiprocessors() -> None:
    # 128 bytes per clock and multiprocessor: 132 of them at 1.755 GHz.
    assert pytest.approx(29.65e12, rel=1e-3) == H100.l1


def test_least_times_are_bytes_over_speeds() -> None:
    device = limits.Device('x', 2e9, 8e9, 'copy')
    assert limits.seconds(device, 10, 16) == (5e-9, 2e-9)
    assert limits.seconds(device, 10, 0) == (5e-9, 0)


def test_a_device_of_unknown_clock_has_no_bound_by_l1() -> None:
    device = limits.device_of('Some GPU', 1e12, 10, 0)
    assert limits.seconds(device, 10, 16) == (1e-11, 0)
