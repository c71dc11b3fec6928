"""A runner of a model of two layers."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.structures import BaseDataElement
from torch import nn

from mmdcn.engine.runner import CheckedRunner
from tests.mmdcn.data.images import Images, write_images


class Toy(BaseModel):
    """Two layers; what the data set says is not looked at."""

    def __init__(self, width=3):
        super().__init__()
        self.first, self.last = nn.Linear(2, width), nn.Linear(width, 1)

    def forward(self, inputs=None, mode='loss', **kwargs):
        if mode == 'predict':
            return [BaseDataElement()]
        return {'loss': self.last(self.first(torch.ones(1, 2))).square().sum()}


class ToyImages(Images):
    """Images by their folder, as a config can name it."""

    built = 0

    def __init__(self, folder, **options):
        type(self).built += 1
        super().__init__(sorted(Path(folder).iterdir()), **options)

    def prepare_data(self, idx):
        sample = BaseDataElement(metainfo={'img_path': self.get_data_info(idx)['img_path']})
        return {'inputs': torch.zeros(1), 'data_samples': sample}


class QuietRunner(CheckedRunner):
    """Does not look up compilers and versions for its log, which takes a second."""

    def _log_env(self, env_cfg):
        pass


def toy_config(folder: Path, **change) -> Config:
    """A run of two iterations on the images of a folder; keywords replace entries."""
    return Config({**dict(
        default_scope='mmengine', model=dict(type='Toy'), work_dir=str(folder / 'work'),
        train_dataloader=toy_loader(folder / 'images'), log_processor=dict(by_epoch=False),
        log_level='ERROR', train_cfg=dict(type='IterBasedTrainLoop', max_iters=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2,
                                           by_epoch=False))), **change})


def toy_loader(folder: Path) -> dict:
    return dict(batch_size=1, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=False),
                dataset=dict(type='ToyImages', folder=str(folder)))


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Function that builds a runner; keywords replace entries of its config."""
    monkeypatch.setitem(MODELS.module_dict, 'Toy', Toy)
    monkeypatch.setitem(DATASETS.module_dict, 'ToyImages', ToyImages)
    write_images(tmp_path / 'images', 4)
    monkeypatch.setattr(ToyImages, 'built', 0)

    def build(**change):
        return QuietRunner.from_cfg(toy_config(tmp_path, **change))
    build.loader = lambda folder='images': toy_loader(tmp_path / folder)
    return build
