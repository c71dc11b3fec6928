"""Made-up results of every variant."""
from __future__ import annotations

from tools.dev.claims import training_name
from tools.dev.learn_results import Outcome, Record
from tools.dev.paper_claims.trials import EVERY, ITERATIONS, SEEDS, VARIANTS
from tools.dev.paper_claims.verdicts import Result


def records(**ends: float) -> dict[str, Record]:
    """Straight curves from 12.5 % to 70 % or the end given by variant; seeds lie 1 point apart."""
    found = {}
    for name in VARIANTS:
        for seed in SEEDS:
            end = ends.get(name, 70.0) + seed - 1
            curve = {f'top1@{at}': 12.5 + (end - 12.5) * at / ITERATIONS
                     for at in range(EVERY, ITERATIONS + 1, EVERY)}
            costs = {'params': 1e6, 'macs': 2e7, 'memory': 3e7}
            found[training_name(name, seed)] = Record(
                Outcome({**curve, **costs}, ITERATIONS, 1.0), {}, 'abc1234', 'a CPU', '2026-01-01')
    return found


def results(**ends: float) -> dict[str, Result]:
    """The same by variant."""
    made = records(**ends)
    return {name: Result.of([made[training_name(name, seed)] for seed in SEEDS])
            for name in VARIANTS}
