"""Names of the classes: the same in the code, in its description and in the configs."""
from __future__ import annotations

import re

import pytest

from mmdcn.apis.config import load_config
from tests.helpers import ROOT
from tools import make_mini_data
from tools.mini_data import classes


def described(text: str) -> dict[str, tuple[str, ...]]:
    """``- coco: circle, ring`` of a docstring; lists may go on in the next line."""
    found = re.findall(r'^- (\w+): ([\w, ]+(?:(?<=,)\n  [\w, ]+)*)', text, re.MULTILINE)
    return {name: tuple(word.strip() for word in names.split(',') if word.strip())
            for name, names in found}


@pytest.mark.parametrize('module', [classes, make_mini_data], ids=['classes', 'tool'])
def test_descriptions_name_the_classes(module) -> None:
    assert described(module.__doc__) == classes.CLASSES


def test_order_is_that_of_the_labels() -> None:
    """By id in COCO, by folder name in ImageNet, the background first in ADE20K."""
    ids = list(classes.COCO_CATEGORY_IDS.values())
    assert ids == sorted(set(ids))
    assert list(classes.IMAGENET_CLASSES) == sorted(classes.IMAGENET_CLASSES)
    assert classes.ADE_CLASSES[0] == 'background'
    for names in classes.CLASSES.values():
        assert len(set(names)) == len(names)


def test_classes_of_nuscenes_are_in_alphabetical_order() -> None:
    assert list(classes.NUSCENES_CLASSES) == sorted(classes.NUSCENES_CLASSES)
    assert set(classes.DEFAULT_SETS) == set(classes.CLASSES) - {'nuscenes'}


def test_ids_of_coco_have_gaps() -> None:
    ids = list(classes.COCO_CATEGORY_IDS.values())
    assert ids != list(range(ids[0], ids[0] + len(ids))) and min(ids) > 0


def test_colours_can_be_told_apart() -> None:
    colours = classes.PALETTE
    assert all(0 <= value <= 255 for colour in colours for value in colour)
    for i, first in enumerate(colours):
        for second in colours[i + 1:]:
            assert sum(abs(a - b) for a, b in zip(first, second, strict=True)) >= 60


@pytest.mark.parametrize(('model', 'set_name'), [('mask-rcnn', 'coco'), ('upernet', 'ade')])
def test_configs_state_the_same_names(model: str, set_name: str) -> None:
    path = next((ROOT / 'configs' / 'mini').glob(f'{model}_flash-internimage-*.py'))
    cfg = load_config(str(path))
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        metainfo = loader.dataset.metainfo
        assert tuple(metainfo.classes) == classes.CLASSES[set_name]
        assert len(metainfo.palette) == len(metainfo.classes)
