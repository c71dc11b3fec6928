"""Tiny systems of each task, and fixtures that give them trained or with random weights."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from tests import tiny


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
        from tools import train  # here, because the tests of the operators need not import it
        torch.set_num_threads(1)
        if name not in systems:
            root = tmp_path_factory.mktemp(name)
            config = getattr(tiny, f'make_{name}')(root / 'data')
            assert train.main([str(config), '--work-dir', str(root / 'work'), '--seed', '0']) == 0
            systems[name] = System(str(config), root / 'data', root / 'work')
        return systems[name]

    return get


BACKBONE = "backbone=dict(type='MobileNetV2', widen_factor=0.1, out_indices=(7, )),"
OURS = ("backbone=dict(type='InternImage', core_op='{core_op}', channels=16, depths=(1, 1, 2, 1), "
        'groups=(2, 2, 4, 4), offset_scale=1.5, out_indices=(3, )),')


@dataclass(frozen=True)
class Classifier:
    """Config, checkpoint with random offsets, and an image."""

    config: str
    checkpoint: str
    image: Path


def randomise(model: nn.Module) -> nn.Module:
    """Give offsets of a few pixels, and masks and projections that are not zero."""
    with torch.no_grad():
        for name, param in model.named_parameters():
            if 'offset' in name or 'mask' in name:
                param.normal_(std=1.0 if param.ndim == 1 else 0.2)
    return model


@pytest.fixture(scope='session')
def deformable(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Classifier]:
    """Function that gives a classifier with a core operator, made when first asked for."""
    made: dict[str, Classifier] = {}

    def get(core_op: str) -> Classifier:
        from mmengine.registry import MODELS

        from mmdcn.apis import config, inference
        if core_op not in made:
            root = tmp_path_factory.mktemp(core_op)
            path = tiny.make_classifier(root / 'data')
            text = path.read_text()
            assert BACKBONE in text
            text = text.replace(BACKBONE, OURS.format(core_op=core_op)).replace('1280', '128')
            path.write_text(text)
            cfg = config.load_config(str(path))
            torch.manual_seed(0)
            with inference.task_scope(cfg):
                model = randomise(MODELS.build(cfg.model))
            checkpoint = root / 'random.pth'
            torch.save({'state_dict': model.state_dict()}, checkpoint)
            made[core_op] = Classifier(str(path), str(checkpoint),
                                       root / 'data' / 'val' / 'light' / '0.jpg')
        return made[core_op]

    return get
