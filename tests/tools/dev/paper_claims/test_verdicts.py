"""The rule of the verdicts."""
from __future__ import annotations

import pytest
from scipy import stats

from tools.dev.learn_results import Outcome, Record
from tools.dev.paper_claims.verdicts import (
    AGREES,
    DISAGREES,
    T_QUANTILE,
    UNDECIDED,
    Difference,
    Result,
    difference,
    judge,
)


@pytest.mark.parametrize(('expected', 'value', 'half', 'verdict'), [
    ('higher', 5.0, 4.0, AGREES), ('higher', -5.0, 4.0, DISAGREES), ('higher', 5.0, 6.0, UNDECIDED),
    ('lower', -5.0, 4.0, AGREES), ('lower', 5.0, 4.0, DISAGREES), ('lower', -0.9, 0.1, UNDECIDED),
    ('alike', 0.5, 4.4, AGREES), ('alike', -0.5, 4.4, AGREES), ('alike', 0.5, 4.6, UNDECIDED),
    ('alike', 8.0, 7.0, DISAGREES), ('alike', -8.0, 9.0, UNDECIDED), ('alike', 4.9, 0.2, UNDECIDED),
])
def test_verdict(expected, value, half, verdict):
    assert judge(expected, Difference(value, half)) == verdict


def test_what_is_counted_needs_no_size():
    assert judge('lower', Difference(-0.1, 0.0), smallest=0.0) == AGREES
    assert judge('lower', Difference(0.1, 0.0), smallest=0.0) == DISAGREES
    assert judge('lower', Difference(0.0, 0.0), smallest=0.0) == UNDECIDED


def test_the_interval_is_that_of_the_t_test():
    first, second = [70.0, 74.0, 75.0], [60.0, 61.0, 66.0]
    found = difference(first, second)
    low, high = stats.ttest_ind(first, second).confidence_interval(0.95)
    assert found.value == pytest.approx((low + high) / 2)
    assert found.half == pytest.approx((high - low) / 2, rel=1e-3)
    assert pytest.approx(stats.t.ppf(0.975, 4), abs=1e-3) == T_QUANTILE


def test_result_of_records():
    records = [Record(Outcome({'top1@100': 20.0 + seed, 'top1@200': 60.0, 'params': 5.0,
                               'macs': 7.0, 'memory': 9.0}, 200, 1.0), {}, 'abc', 'm', 'd')
               for seed in range(3)]
    result = Result.of(records)
    assert result.iterations == [100, 200]
    assert result.top1(100) == [20.0, 21.0, 22.0]
    assert (result.params, result.macs, result.memory) == (5, 7, 9)
