"""Timing, memory and profiles of steps whose cost is known."""
from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmdcn.analysis import speed
from mmdcn.analysis.speed import DEFORMABLE, KINDS, NO_MODULE, OPTIMIZER, OUTSIDE, PRODUCTS, Step
from ops_dcn import DCNv4, dcnv4


class Sleeps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.05)
        return 2 * x


class Slow(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        time.sleep(0.05)
        return gradient.clone()


class SlowBackward(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Slow.apply(x)


class SlowLoss(nn.Module):
    """A head as OpenMMLab has them: the loss is no forward."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum()

    def loss(self, x: Tensor) -> Tensor:
        time.sleep(0.05)
        return self(x)


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = SlowLoss()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head.loss(self.layer(x))


def training(model: nn.Module, x: Tensor) -> Step:
    return Step(lambda: model(x).sum().backward())


def profile(model: nn.Module, x: Tensor, steps: int = 1) -> speed.Profile:
    training(model, x).run()
    return speed.profile(training(model, x), 'cpu', steps, model)


def test_module_that_sleeps_is_the_slowest() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(Sleeps(), nn.ReLU()))
    found = profile(model, torch.randn(2, 8))
    assert (found.parts[0].name, found.parts[0].kind) == ('1.0', 'Sleeps')
    assert found.parts[0].seconds >= 0.05
    assert sum(part.seconds for part in found.parts) == pytest.approx(found.seconds)
    # What a module holds does not count for it.
    outer = next(part for part in found.parts if part.name == '1')
    assert outer.seconds < 0.05
    assert found.shares[OUTSIDE] > 0.5


def test_backward_work_belongs_to_the_module_whose_forward_made_it() -> None:
    model = nn.Sequential(nn.Linear(8, 8), SlowBackward(), nn.Linear(8, 8))
    found = profile(model, torch.randn(2, 8))
    assert found.parts[0].name == '1'
    assert found.parts[0].seconds >= 0.05


def test_losses_belong_to_the_module_that_computes_them() -> None:
    model = Detector()
    found = profile(model, torch.randn(2, 4))
    assert found.parts[0].name == 'head'
    assert found.parts[0].seconds >= 0.05


def test_profile_is_that_of_the_fastest_step() -> None:
    class SleepsLess(nn.Module):
        left = [0.2, 0.05, 0.3]

        def forward(self, x: Tensor) -> Tensor:
            time.sleep(self.left.pop(0))
            return x
    model = SleepsLess()
    found = speed.profile(Step(lambda: model(torch.ones(1))), 'cpu', 3, model)
    assert 0.05 <= found.parts[0].seconds <= found.seconds < 0.2
    assert found.parts[0].name == '' and found.parts[0].count == 1 and model.left == []


def test_classes_add_up_their_modules() -> None:
    model = nn.Sequential(nn.ReLU(), Sleeps(), Sleeps())
    found = profile(model, torch.randn(2, requires_grad=True))
    first = found.by_class()[0]
    assert (first.kind, first.count, first.name) == ('Sleeps', 2, '')
    sleeping = [part.seconds for part in found.parts if part.kind == 'Sleeps']
    assert first.seconds == pytest.approx(sum(sleeping))
    assert sum(part.share for part in found.by_class()) == pytest.approx(1)
    assert NO_MODULE in [part.name for part in found.by_class()]


def test_steps_of_an_optimizer_have_their_own_line() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())

    def run() -> None:
        model(torch.randn(1, 4)).sum().backward()
        optimizer.step()
    run()
    found = speed.profile(Step(run), 'cpu', 1, model)
    assert OPTIMIZER in [part.name for part in found.parts]



def test_share_of_the_deformable_operators() -> None:
    value = torch.randn(1, 32, 32, 64, requires_grad=True)
    offset_mask = torch.zeros(1, 32, 32, 112, requires_grad=True)

    def alone() -> None:
        dcnv4(value, offset_mask, groups=4).backward(value.detach())
    alone()
    found = speed.profile(Step(alone), 'cpu', 3)
    assert found.shares[DEFORMABLE] > 0.5
    assert found.shares[PRODUCTS] == 0
    assert found.parts == []

    without = profile(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.randn(1, 3, 32, 32))
    assert without.shares[DEFORMABLE] == 0
    assert without.shares[PRODUCTS] > 0

    model = DCNv4(64, group=4)
    both = profile(model, torch.randn(1, 32, 32, 64))
    assert both.shares[DEFORMABLE] > 0 and both.shares[PRODUCTS] > 0
    for each in (found, without, both):
        assert list(each.shares) == list(KINDS)
        assert sum(each.shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(('run', 'is_product'), [
    (lambda: torch.randn(64, 64) @ torch.randn(64, 64), True),
    (lambda: nn.functional.linear(torch.randn(2, 3, 4), torch.randn(5, 4), torch.randn(5)), True),
    (lambda: torch.baddbmm(torch.zeros(1, 3, 3), torch.ones(1, 3, 3), torch.ones(1, 3, 3)), True),
    (lambda: nn.functional.scaled_dot_product_attention(*[torch.randn(1, 2, 8, 4)] * 3), True),
    (lambda: nn.functional.conv_transpose2d(torch.ones(1, 2, 4, 4), torch.ones(2, 2, 2, 2)), True),
    (lambda: nn.functional.interpolate(torch.ones(1, 2, 4, 4), size=8, mode='bilinear'), False),
    (lambda: nn.functional.layer_norm(torch.ones(4, 4), (4, )).softmax(0).sum(), False)])
def test_products_are_told_from_other_operators(run: Any, is_product: bool) -> None:
    run()
    assert (speed.profile(Step(run), 'cpu', 1).shares[PRODUCTS] > 0) == is_product


def test_a_profile_leaves_the_model_as_it_was() -> None:
    model = Detector()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    profile(model, torch.randn(2, 4))
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert not any(module._forward_hooks or module._forward_pre_hooks or
                   module._forward_hooks_always_called for module in model.modules())


def test_a_failure_under_the_profiler_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(RuntimeError, match='cannot be multiplied'):
        speed.profile(Step(lambda: model(torch.ones(2, 3))), 'cpu', 1, model)
    assert not any(module._forward_hooks for module in model.modules())
    profile(model, torch.ones(2, 4))


def test_twice_the_work_takes_twice_as_long() -> None:
    def sleep(count: int) -> Step:
        return Step(lambda: [time.sleep(0.02) for _ in range(count)])
    taken = speed.time_in_turn({'once': sleep(1), 'twice': sleep(2)}, 'cpu', 7)
    ratio = speed.pairwise_ratio(taken['twice'], taken['once'])
    assert ratio.median == pytest.approx(2, rel=0.35)
    assert ratio.low <= ratio.median <= ratio.high


def test_steps_take_turns_and_their_preparation_is_not_timed(
        monkeypatch: pytest.MonkeyPatch) -> None:
    diary, now = [], [0.0]
    monkeypatch.setattr(speed.time, 'perf_counter', lambda: now[0])

    def step(name: str, seconds: float) -> Step:
        def prepare() -> str:
            now[0] += 100
            return f'batch of {name}'

        def run(batch: str) -> None:
            diary.append(batch)
            now[0] += seconds
        return Step(run, prepare)
    taken = speed.time_in_turn({'a': step('a', 1), 'b': step('b', 2)}, 'cpu', 3)
    assert diary == ['batch of a', 'batch of b'] * 3
    assert taken == {'a': [1, 1, 1], 'b': [2, 2, 2]}


def test_a_device_is_waited_for_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    diary: list[str] = []
    monkeypatch.setattr(speed.torch.cuda, 'synchronize', lambda device: diary.append('wait'))
    speed.seconds_of(Step(lambda: diary.append('run')), 'cuda')
    assert diary == ['wait', 'run', 'wait']


def test_median_and_quartiles() -> None:
    assert speed.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == speed.Spread(3, 2, 4)
    assert speed.spread([7.0]) == speed.Spread(7, 7, 7)
    # Pairs, not the quotient of medians: a slow moment that hits both neighbours cancels.
    assert speed.pairwise_ratio([2.0, 20.0, 4.0], [1.0, 10.0, 2.0]) == speed.Spread(2, 2, 2)


@pytest.mark.parametrize('megabytes', [1, 8])
def test_peak_memory_grows_with_what_is_allocated(megabytes: int) -> None:
    def run() -> Tensor:
        for _ in range(3):  # one after the other
            kept = torch.empty(megabytes * 10 ** 6, dtype=torch.uint8)
            kept.clone()
            del kept
        return torch.ones(1)
    found = speed.peak_memory(Step(run), 'cpu', held=5)
    assert found.held == 5
    assert found.peak == pytest.approx(5 + 2e6 * megabytes, rel=0.01)
    assert 'not the process' in found.measure


def test_peak_memory_takes_off_what_a_step_releases_first() -> None:
    kept = [torch.empty(0)]

    def run() -> None:
        kept[0] = None
        kept[0] = torch.empty(10 ** 6, dtype=torch.uint8)
    assert speed.peak_memory(Step(run), 'cpu').peak < 10 ** 5


def test_held_memory_counts_each_tensor_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4, affine=False))
    model.append(model[0])
    assert speed.held_bytes(model) == 4 * 16 + 2 * 16 + 8
    assert speed.held_bytes(model, model[0]) == speed.held_bytes(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    model(torch.ones(2, 4)).sum().backward()
    assert speed.held_bytes(model, optimizer) == 2 * 64 + 40
    optimizer.step()
    assert speed.held_bytes(model, optimizer) == 3 * 64 + 40
    assert speed.held_bytes([torch.ones(3), {'x': torch.ones(2)}]) == 20
