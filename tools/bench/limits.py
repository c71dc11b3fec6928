"""What no kernel can beat: bytes that must cross memory, and samples that must come from L1."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

CORNERS = 4
L1_BYTES_PER_CLOCK = 128  # per multiprocessor


@dataclass(frozen=True)
class Device:
    """Speeds of a GPU.

    Attributes:
        name: As the driver gives it.
        memory: Bytes per second that a good kernel gets from its memory.
        l1: Bytes per second of all L1 caches together; 0 where the clock is unknown.
        source: Where ``memory`` comes from.
    """

    name: str
    memory: float
    l1: float
    source: str


# (words of the name, achievable bytes/s of memory, multiprocessors, boost clock); the first match.
_KNOWN = (
    (('H200',), 4.3e12, 132, 1.755e9),
    (('H100', 'HBM3'), 3.0e12, 132, 1.755e9),
    (('A100', '80GB'), 1.75e12, 108, 1.41e9),
    (('A100',), 1.55e12, 108, 1.41e9),
)


def device_of(name: str, copy_speed: float, multiprocessors: int, clock: float) -> Device:
    """The speeds of a GPU: of a table where it is in it, else a measured copy and its clock."""
    for words, memory, known_multiprocessors, known_clock in _KNOWN:
        if all(word in name for word in words):
            l1 = L1_BYTES_PER_CLOCK * known_multiprocessors * known_clock
            return Device(name, memory, l1, 'table')
    return Device(name, copy_speed, L1_BYTES_PER_CLOCK * multiprocessors * clock, 'copy')


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Size of all tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def compulsory_bytes(inputs: Iterable[Tensor], output: Tensor, direction: str) -> int:
    """Every tensor once: inputs and output forward; backward the output's gradient too, and theirs.

    Backward reads the inputs and the gradient of the output and writes the gradients of the inputs.
    """
    floats = bytes_of(tensor for tensor in inputs if tensor.is_floating_point())
    return floats + bytes_of([output]) if direction == 'forward' else 2 * floats + bytes_of(
        [output])


def gathered_bytes(queries: int, points: int, channels: int, dtype: torch.dtype) -> int:
    """What the corners of all samples are together; ``channels`` of all groups."""
    return CORNERS * queries * points * channels * dtype.itemsize


def seconds(device: Device, compulsory: int, gathered: int) -> tuple[float, float]:
    """Least time by memory and by L1; 0 where the speed of L1 is unknown."""
    return compulsory / device.memory, gathered / device.l1 if device.l1 else 0.0
