"""Tiny data sets, and one trained checkpoint of each task."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.tools import tiny
from tools import train

torch.set_num_threads(1)


@dataclass(frozen=True)
class System:
    """A tiny system: its config, the folder of its data, and the folder it was trained in."""

    config: str
    data: Path
    work_dir: Path

    @property
    def checkpoint(self) -> str:
        return str(self.work_dir / 'iter_4.pth')


@pytest.fixture(scope='session')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], System]:
    """Function that gives the trained tiny system of a task, trained when first asked for."""
    systems: dict[str, System] = {}

    def get(name: str) -> System:
        if name not in systems:
            root = tmp_path_factory.mktemp(name)
            config = getattr(tiny, f'make_{name}')(root / 'data')
            assert train.main([str(config), '--work-dir', str(root / 'work'), '--seed', '0']) == 0
            systems[name] = System(str(config), root / 'data', root / 'work')
        return systems[name]

    return get
