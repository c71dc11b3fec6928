"""Names and colours of classes: what is taken from a file, and what is refused."""
from __future__ import annotations

import numpy as np
import pytest

from mmdcn.checkpoints import CheckpointError, read_dataset_meta

NAMES = ('a', 'b')
BLACK = [[0, 0, 0]]


@pytest.mark.parametrize('meta', [
    {'classes': 'dark'}, {'classes': [1, 2]}, {'classes': {'a': 1}}, {'classes': ['x'] * 2 ** 18},
    {'classes': ['x' * 10 ** 5] * 2}, {'thing_classes': 3}, {'stuff_classes': [NAMES]},
    {'palette': BLACK * 2 ** 18}, {'palette': 7}, {'palette': {'a': 1}},
    {'palette': [[0, 0, 'x']] * 2}, {'palette': [[0, 0, 256]]}, {'palette': [[0, -1, 0]]},
    {'palette': [[0, 0]]}, {'palette': [1, 2]}, {'palette': [[0.5, 0, 0]]}, [1], 'x', 7])
def test_other_forms_are_refused(meta):
    with pytest.raises(CheckpointError, match=r' of a\.pth is a ') as caught:
        read_dataset_meta({'meta': {'dataset_meta': meta}}, 'a.pth')
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(('meta', 'expected'), [
    (None, {}), ({}, {}), ({'dataset_meta': None}, {}), ({'dataset_meta': {'more': 7}}, {}),
    ({'CLASSES': None}, {}), ({'CLASSES': NAMES}, {'classes': NAMES}),
    ({'CLASSES': list(NAMES), 'PALETTE': BLACK * 2},
     {'classes': NAMES, 'palette': [(0, 0, 0)] * 2}),
    ({'dataset_meta': {'classes': NAMES, 'palette': 'random'}}, {'classes': NAMES}),
    ({'dataset_meta': {'classes': list(NAMES), 'palette': BLACK}}, {'classes': NAMES}),
    ({'dataset_meta': {'classes': np.array(NAMES), 'palette': np.zeros((3, 3), np.uint8)}},
     {'classes': NAMES, 'palette': [(0, 0, 0)] * 3}),
    ({'dataset_meta': {'thing_classes': ['a'], 'stuff_classes': ['b'], 'palette': None}},
     {'thing_classes': ('a',), 'stuff_classes': ('b',)})])
def test_what_is_taken(meta, expected):
    assert read_dataset_meta({'meta': meta} if meta is not None else {}, 'a.pth') == expected
