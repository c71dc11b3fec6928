"""The assignment against all assignments."""
from __future__ import annotations

import itertools
import math

import pytest
import torch

pytest.importorskip('mmdet3d_custom')
from mmdet3d_custom.models.matching import HungarianMatcher3D, smooth_l1_cost  # noqa: E402


def pair_cost(logits: torch.Tensor, code: torch.Tensor, label: int, target: torch.Tensor) -> float:
    """Cost of one query (logits (classes,), code (10,)) as one object."""
    p = 1 / (1 + math.exp(-float(logits[label])))
    focal = (0.25 * (1 - p) ** 2 * -math.log(p + 1e-12)
             - 0.75 * p ** 2 * -math.log(1 - p + 1e-12))
    distance = 0.0
    for entry in range(8):  # without the velocity
        d = abs(float(code[entry] - target[entry]))
        distance += 0.5 * d * d if d < 1 else d - 0.5
    return 2.0 * focal + 0.75 * distance


@pytest.mark.parametrize(('queries', 'objects'), [(5, 3), (3, 3), (2, 4), (4, 1)])
def test_the_cheapest_assignment_is_found(queries, objects):
    matcher, generator = HungarianMatcher3D(), torch.Generator().manual_seed(queries)
    logits = torch.randn(2, queries, 4, generator=generator)
    codes = torch.randn(2, queries, 10, generator=generator)
    targets = torch.randn(objects, 10, generator=generator)
    labels = torch.randint(4, (objects,), generator=generator)
    found, answers = matcher(logits, codes, labels, targets)
    count = min(queries, objects)
    assert found.shape == answers.shape == (2, count)
    for group in range(2):
        cost = [[pair_cost(logits[group, q], codes[group, q], int(labels[m]), targets[m])
                 for m in range(objects)] for q in range(queries)]
        best = min(sum(cost[q][m] for q, m in zip(qs, ms, strict=True))
                   for qs in itertools.permutations(range(queries), count)
                   for ms in itertools.combinations(range(objects), count))
        pairs = list(zip(found[group].tolist(), answers[group].tolist(), strict=True))
        assert len({q for q, _ in pairs}) == len({m for _, m in pairs}) == count
        assert math.isclose(sum(cost[q][m] for q, m in pairs), best, rel_tol=1e-5)


def test_velocity_does_not_count():
    codes = torch.zeros(1, 2, 10)
    codes[0, 0, :8] = 0.1
    codes[0, 0, 8:] = 0.0
    codes[0, 1, 8:] = 100.0
    found, _ = HungarianMatcher3D()(torch.zeros(1, 2, 3), codes, torch.tensor([0]),
                                    torch.zeros(1, 10))
    assert found.tolist() == [[1]]


def test_no_objects():
    found, answers = HungarianMatcher3D()(
        torch.randn(3, 5, 4), torch.randn(3, 5, 10), torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 10))
    assert found.shape == answers.shape == (3, 0)


def test_values_that_are_not_finite_are_matched_last():
    codes = torch.zeros(1, 4, 10)
    codes[0, 0, 0], codes[0, 1, 2] = math.nan, math.inf
    targets = torch.zeros(2, 10)
    found, _ = HungarianMatcher3D()(torch.zeros(1, 4, 3), codes, torch.tensor([0, 1]), targets)
    assert sorted(found[0].tolist()) == [2, 3]
    targets[0, 2] = -math.inf  # an object without length
    found, answers = HungarianMatcher3D()(torch.zeros(1, 4, 3), codes, torch.tensor([0, 1]),
                                          targets)
    assert sorted(answers[0].tolist()) == [0, 1]


def test_smooth_l1_turns_at_one():
    codes = torch.tensor([[0.0], [0.5], [1.0], [3.0]])
    got = smooth_l1_cost(codes, torch.zeros(1, 1))
    assert got[:, 0].tolist() == [0, 0.125, 0.5, 2.5]
