"""What the benchmarks on a CPU share: medians of single calls, threads, options."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from tools.bench import cpu_timer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still; add to its only entry to let time pass."""
    now = [100.0]
    monkeypatch.setattr(cpu_timer.time, 'perf_counter', lambda: now[0])
    return now


def pace(clock: list[float], seconds: list[float]) -> Any:
    """A call that takes the seconds of the list, one after the other."""
    left = iter(seconds)

    def call() -> None:
        clock[0] += next(left)
    return call


@pytest.mark.parametrize(('seconds', 'median'), [
    ([3], 3), ([1, 1, 100], 1), ([4, 2, 8], 4), ([1, 2, 4, 64], 3)])
def test_one_disturbed_call_does_not_count(clock: list[float], seconds: list[float],
                                           median: float) -> None:
    assert cpu_timer.timed(pace(clock, seconds), len(seconds)) == median


def test_threads_are_set() -> None:
    before = torch.get_num_threads()
    try:
        for count in (2, 1):
            cpu_timer.set_threads(count)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)


def test_progress_stays_out_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    cpu_timer.report('\rhalf')
    assert capsys.readouterr() == ('', '\rhalf')


@pytest.mark.parametrize(('options', 'words'), [
    ({'threads': [2, 0]}, r'threads is not valid: got \[2, 0\]'),
    ({'json': Path(f'{__file__}/x.json')}, 'json is not valid: .*is a file'),
    ({'json': Path('x.json'), 'plot': Path('x.json')}, 'plot is not valid: .*as for `json`')])
def test_options_that_are_not_possible(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cpu_timer.check_options(argparse.Namespace(**{'threads': [1], 'json': None} | options))


def test_options_that_are_possible(tmp_path: Path) -> None:
    cpu_timer.check_options(argparse.Namespace(threads=[1], json=tmp_path / 'new.json', plot=None))
    assert not any(tmp_path.iterdir())


def test_levels_are_those_of_one_image() -> None:
    sides = [(-(-800 // stride), -(-1333 // stride)) for stride in (8, 16, 32, 64)]
    assert list(cpu_timer.LEVELS) == sides
    assert sum(height * width for height, width in cpu_timer.LEVELS) == 22_223
