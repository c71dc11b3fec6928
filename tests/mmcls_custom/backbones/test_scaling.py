"""InternImage's design rules against the published family."""
from __future__ import annotations

import math

import pytest

from mmcls_custom.backbones import InternImage
from mmcls_custom.backbones.scaling import (
    ALPHA,
    BETA,
    ORIGIN,
    WIDTH_EXPONENT,
    Stacking,
    phi_of_width,
    scale,
)
from mmdcn.analysis.complexity import build_on_meta, count


def test_the_origin_is_the_published_tiny_model() -> None:
    assert Stacking.of(InternImage.archs['tiny']) == ORIGIN == Stacking(64, 16, 4, 18)
    assert scale(0) == ORIGIN


@pytest.mark.parametrize('name', ['small', 'base', 'large', 'xlarge', 'huge'])
def test_published_sizes_follow_the_stacking_rules(name: str) -> None:
    arch = InternImage.archs[name]
    assert Stacking.of(arch).arch == {key: arch[key] for key in ('channels', 'depths', 'groups')}


def test_the_giant_breaks_the_stacking_rules() -> None:
    with pytest.raises(ValueError, match=r'depths is not valid: got \(2, 2, 48, 4\)'):
        Stacking.of(InternImage.archs['giant'])


@pytest.mark.parametrize('numbers', [(65, 16, 4, 18), (64, 16, 4, 3), (64, 16, 0, 18)])
def test_numbers_that_break_a_rule_are_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match='is not valid'):
        Stacking(*numbers)


def test_a_step_of_phi_doubles_the_operations() -> None:
    growth = ALPHA * BETA**WIDTH_EXPONENT
    assert growth == pytest.approx(2, rel=0.01)

    def macs(stacking: Stacking) -> int:
        backbone = build_on_meta(lambda: InternImage(stacking.arch))
        return count(backbone, (1, 3, 224, 224)).macs

    costs = [macs(scale(phi)) for phi in range(5)]
    for low, high in zip(costs, costs[1:], strict=False):
        # Widths are multiples of 16, so single steps are off by up to 2 * 8 / 96 of the width.
        assert 1.6 < high / low < 2.5
    assert (costs[-1] / costs[0])**0.25 == pytest.approx(2, rel=0.03)
    wider = macs(Stacking(128, 16, 4, 18)) / macs(ORIGIN)
    assert math.log2(wider) == pytest.approx(WIDTH_EXPONENT, abs=0.02)


@pytest.mark.parametrize(('channels', 'rule'), [
    (80, Stacking(80, 16, 4, 20)), (112, Stacking(112, 16, 5, 20)),
    (160, Stacking(160, 16, 5, 24)), (192, Stacking(192, 16, 5, 26))])
def test_the_rule_at_a_published_width(channels: int, rule: Stacking) -> None:
    assert scale(phi_of_width(channels)) == rule


def test_the_group_width_may_change() -> None:
    assert scale(phi_of_width(320), group_channels=32) == Stacking(320, 32, 6, 29)
