"""A module answers for itself first, then a plug-in answers for it."""
from __future__ import annotations

import pytest
from torch import nn

from mmdcn import traits
from mmdcn.traits import answers, find_trait


@pytest.fixture(autouse=True)
def _no_answers(monkeypatch):
    monkeypatch.setattr(traits, '_ANSWERS', {})


class Answering(nn.Module):
    shade = 'own'


def test_own_attribute_comes_first():
    answers('shade')(lambda module: 'foreign')
    assert find_trait(Answering(), 'shade') == 'own'
    assert find_trait(nn.Linear(1, 1), 'shade') == 'foreign'


def test_first_answer_that_knows_the_module_counts():
    answers('size')(lambda module: None)
    answers('size')(lambda module: module.in_features if isinstance(module, nn.Linear) else None)
    answers('size')(lambda module: -1)
    assert find_trait(nn.Linear(7, 1), 'size') == 7
    assert find_trait(nn.ReLU(), 'size') == -1


def test_a_falsy_answer_is_an_answer():
    answers('size')(lambda module: 0)
    answers('size')(lambda module: 5)
    assert find_trait(nn.ReLU(), 'size') == 0


def test_nobody_answers():
    answers('size')(lambda module: None)
    assert find_trait(nn.ReLU(), 'size') is None and find_trait(nn.ReLU(), 'other') is None
