"""Illegal calls are refused well; a bad refusal is found."""
from __future__ import annotations

import pytest

import ops_dcn
from ops_dcn.operators import OPERATORS
from tools.dev import fuzz_ops


@pytest.mark.parametrize('name', OPERATORS)
def test_random_calls(name):
    faults = [(number, fault) for number in range(60)
              if (fault := fuzz_ops.run_call('illegal', name, number, seed=1)[0])]
    assert not faults


@pytest.mark.parametrize('error', [RuntimeError('value must be contiguous'),
                                   ValueError('value must be dense'), None])
def test_a_bad_refusal_is_found(monkeypatch, capsys, error):
    def call(*inputs, **options):
        if error is not None:
            raise error

    monkeypatch.setattr(ops_dcn, 'dcnv4', call)
    assert fuzz_ops.main(['--legal', '0', '--illegal', '8']) == 1
    out = capsys.readouterr().out
    assert 'illegal:dcnv4:1' in out and '2 faults' in out
