"""Text of configs: values as they are read back, and what changes with the number of classes."""
from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from mmdcn.errors import UserError
from tools.own_data import config_text
from tools.own_data.config_text import Name, code
from tools.own_data.survey import Split, Survey


@pytest.mark.parametrize('value', [
    1, 'text', (1, ), (), [], {}, dict(a=dict(b=[dict(c=None)])), {'a-b': 1, 2: (3, 4)},
    dict(long=[dict(name='x' * 40, number=list(range(30))) for _ in range(4)]),
    dict(classes=tuple(f'Größe {i}' for i in range(200)))], ids=str)
def test_code_gives_the_value_back(value: object) -> None:
    text = code('x', value)
    read: dict = {}
    exec(text, read)
    assert read['x'] == value
    assert max(map(len, text.splitlines())) <= 100


def test_names_stay_names() -> None:
    assert code('x', dict(a=Name('b + 1'))) == 'x = dict(a=b + 1)\n'


def test_lists_of_heads_are_replaced_as_a_whole() -> None:
    node = dict(roi_head=dict(bbox_head=[dict(num_classes=80, a=1), dict(num_classes=80, a=2)]),
                backbone=dict(depth=50), neck=[dict(x=1)])
    assert config_text._with_classes(node, 3) == dict(
        roi_head=dict(bbox_head=[dict(num_classes=3, a=1), dict(num_classes=3, a=2)]))


def test_weights_of_classes_begin_equal() -> None:
    node = dict(num_classes=4, loss_cls=dict(class_weight=[1.0] * 4 + [0.1]),
                loss_mask=dict(weight=5), loss=dict(class_weight=[1, 2, 3, 4]))
    assert config_text._with_classes(node, 2) == dict(
        num_classes=2, loss_cls=dict(class_weight=[1.0, 1.0, 0.1]),
        loss=dict(class_weight=[1.0, 1.0]))


def survey_of(pictures: int) -> Survey:
    split = Split([Path('a.jpg')] * pictures, {}, {})
    return Survey(Path('x'), ['a'], 'objects', {'train': split, 'val': split})


@pytest.mark.parametrize(('pictures', 'batch', 'gpus', 'total', 'lr', 'length'), [
    (100, None, 1, 2, 0.0125, 1500), (100, 4, 4, 16, 0.1, 1000), (10**7, 8, 8, 64, 0.4, 90000)])
def test_rate_and_length_follow_batch_and_size(pictures: int, batch: int | None, gpus: int,
                                               total: int, lr: float, length: int) -> None:
    base = Config(dict(auto_scale_lr=dict(base_batch_size=16), train_dataloader=dict(batch_size=2),
                       optim_wrapper=dict(optimizer=dict(lr=0.1))))
    numbers = config_text.plan(base, survey_of(pictures), batch, gpus, None)
    assert (numbers['total'], numbers['lr'], numbers['iterations']) == (
        total, pytest.approx(lr), length)
    assert config_text.plan(base, survey_of(pictures), batch, gpus, 7)['iterations'] == 7


def test_a_base_without_batch_is_refused() -> None:
    with pytest.raises(UserError, match='no auto_scale_lr.base_batch_size'):
        config_text.plan(Config({}), survey_of(1), None, 1, None)
