"""What trainings with several seeds say about a claim, by one rule that is stated on the page."""
from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tools.dev.learn_results import Record

AGREES, DISAGREES, UNDECIDED = 'agrees', 'does not agree', 'undecided'
T_QUANTILE = 2.776  # Student's t, 97.5 %, of the 4 degrees of freedom of 3 against 3 trainings
SMALLEST = 1.0  # points of top-1; 4 of the 400 validation images
ALIKE = 5.0  # points of top-1 within which two variants are called alike
ACCURACY = 'top1@'


@dataclass(frozen=True)
class Result:
    """What the trainings of one variant gave.

    Args:
        curves: Top-1 in percent by iteration, one curve for each seed.
        params: Parameters of the model.
        macs: Multiply-adds for one image.
        memory: Bytes of weights, features and gradients at the peak of a training step.
    """

    curves: tuple[dict[int, float], ...]
    params: int
    macs: int
    memory: int

    @classmethod
    def of(cls, records: Sequence[Record]) -> Result:
        """From the records of all seeds; the costs are those of the first."""
        curves = tuple({int(name.removeprefix(ACCURACY)): value
                        for name, value in record.outcome.metrics.items()
                        if name.startswith(ACCURACY)} for record in records)
        first = records[0].outcome.metrics
        return cls(curves, *(int(first[name]) for name in ('params', 'macs', 'memory')))

    @property
    def iterations(self) -> list[int]:
        """Where top-1 was measured."""
        return sorted(self.curves[0])

    def top1(self, iteration: int) -> list[float]:
        """Top-1 of all seeds at an iteration."""
        return [curve[iteration] for curve in self.curves]


@dataclass(frozen=True)
class Difference:
    """First minus second, and half the width of its 95 % interval; 0 for what is counted."""

    value: float
    half: float


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation."""
    return statistics.fmean(values), statistics.stdev(values)


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Difference of the means of three seeds each, with its interval."""
    (mean, deviation), (other, other_deviation) = spread(first), spread(second)
    error = math.sqrt((deviation ** 2 + other_deviation ** 2) / len(first))
    return Difference(mean - other, T_QUANTILE * error)


def judge(expected: str, found: Difference, smallest: float = SMALLEST) -> str:
    """Whether a difference is what a paper says.

    ``'higher'`` and ``'lower'``: a difference counts where it is larger than both its interval and
    ``smallest``; one that does not count leaves the claim undecided. ``'alike'``: agrees where the
    whole interval lies within ``ALIKE`` points, does not agree where a difference that counts is
    larger than these.

    Args:
        expected: What the paper says of the first against the second.
        found: Here.
        smallest: Smallest difference that counts.
    """
    size = abs(found.value)
    counts = size > max(found.half, smallest)
    if expected == 'alike':
        if size + found.half <= ALIKE:
            return AGREES
        return DISAGREES if counts and size > ALIKE else UNDECIDED
    if not counts:
        return UNDECIDED
    return AGREES if (found.value > 0) is (expected == 'higher') else DISAGREES
