"""Small sets of every format, written once by their formats alone."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from tools.mini_data import ade, coco, imagenet
from tools.mini_data.store import Job

FORMATS = {'coco': coco, 'imagenet': imagenet, 'ade': ade}


@dataclass
class Written:
    """A set folder and what its format gave back."""

    folder: Path
    jobs: list[Job]
    records: list[dict]
    counts: dict[str, dict[str, int]]


def write(module: ModuleType, folder: Path, scale: float) -> Written:
    module.prepare(folder)
    jobs = module.plan(3, scale)
    records = [module.draw(folder, job) for job in jobs]
    return Written(folder, jobs, records, module.complete(folder, records))


@pytest.fixture(scope='session')
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    """Function that gives a set by its name, written when first asked for."""
    made: dict[str, Written] = {}
    # 40 and 4 pictures of COCO: one crowd and one empty picture at least; 6 and 1 per class of
    # ImageNet; 15 and 2 of ADE20K.
    scales = {'coco': 0.025, 'imagenet': 0.0055, 'ade': 0.01}

    def get(name: str) -> Written:
        if name not in made:
            made[name] = write(FORMATS[name], tmp_path_factory.mktemp(name), scales[name])
        return made[name]
    return get
