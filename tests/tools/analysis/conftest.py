"""A classifier with an InternImage of random weights."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmcls_custom.engine import config, inference
from tests.tools import tiny

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
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Classifier]:
    """Function that gives the classifier with a core operator, made when first asked for."""
    made: dict[str, Classifier] = {}

    def get(core_op: str) -> Classifier:
        if core_op not in made:
            root = tmp_path_factory.mktemp(core_op)
            path = tiny.make_classifier(root / 'data')
            text = path.read_text()
            assert BACKBONE in text
            text = text.replace(BACKBONE, OURS.format(core_op=core_op)).replace('1280', '128')
            path.write_text("custom_imports = dict(imports=['mmcls_custom'])\n" + text)
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
