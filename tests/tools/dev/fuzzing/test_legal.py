"""Legal calls equal the reference; a wrong operator is found."""
from __future__ import annotations

import pytest
import torch

import ops_dcn
from ops_dcn.operators import OPERATORS
from tools.dev import fuzz_ops


@pytest.mark.parametrize('name', OPERATORS)
def test_random_calls(name):
    faults = [(number, fault) for number in range(60)
              if (fault := fuzz_ops.run_call('legal', name, number, seed=1)[0])]
    assert not faults


@pytest.mark.parametrize('wrong', [
    lambda output: output + 1e-2 * output.abs().max(), lambda output: output[:, :1],
    lambda output: output.to(torch.float64).to(output.dtype) * float('nan')])
def test_a_wrong_operator_is_found(monkeypatch, capsys, wrong):
    right = ops_dcn.dcnv3
    monkeypatch.setattr(ops_dcn, 'dcnv3', lambda *inputs, **options: wrong(
        right(*inputs, **options)))
    assert fuzz_ops.main(['--legal', '80', '--illegal', '0']) == 1
    assert 'legal:dcnv3:' in capsys.readouterr().out
