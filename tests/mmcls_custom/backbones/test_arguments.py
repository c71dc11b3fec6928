"""Checks of constructor arguments that the backbones share."""
from __future__ import annotations

from dataclasses import dataclass

import pytest

from mmcls_custom.backbones.arguments import (
    check_out_indices,
    refuse,
    resolve_arch,
    resolve_out_indices,
)


@dataclass
class Arch:
    width: int
    depth: int = 2


class Owner:
    archs = {'small': dict(width=8), 'deep': dict(width=8, depth=9)}


def resolve(arch, defaults=None, **settings):
    return resolve_arch(Owner, Arch, arch, settings, ('width',), defaults)


def test_keywords_win_over_preset_and_defaults():
    assert resolve('deep') == Arch(8, 9)
    assert resolve('deep', depth=3) == Arch(8, 3)
    assert resolve('small', dict(depth=5)) == Arch(8, 5)
    assert resolve(dict(width=4), width=6) == Arch(6, 2)
    assert resolve(None, width=1) == Arch(1, 2)


@pytest.mark.parametrize(('call', 'words'), [
    (lambda: refuse('x', 3, 'a number'), 'x is not valid: got 3, expected a number'),
    (lambda: resolve('smal'), "arch is not valid: got 'smal', expected one of small, deep"),
    (lambda: resolve('small', widht=1), "Owner setting is not valid: got 'widht'"),
    (lambda: resolve(None, depth=1), r'width is not valid: got None, expected a value, or arch='),
])
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize('indices', [(), (1, 0), (0, 0), (4,), (-1,)])
def test_indices_must_rise_within_bounds(indices):
    assert check_out_indices([0, 3], 4, 'level') == (0, 3)
    with pytest.raises(ValueError, match=r'rising level numbers within 0\.\.3'):
        check_out_indices(indices, 4, 'level')


def test_indices_from_the_end():
    assert resolve_out_indices(-1, 4, 'stage') == [3]
    assert resolve_out_indices((-1, 0, 3), 4, 'stage') == [0, 3]
    for wrong in ((), (4,), (-5,), 4):
        with pytest.raises(ValueError, match=r'stage numbers within -4\.\.3'):
            resolve_out_indices(wrong, 4, 'stage')
