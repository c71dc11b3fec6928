"""The self test passes on right kernels, and on nothing else."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import ops_dcn
from ops_dcn import selftest
from tests.ops_dcn.cases import OPERATORS
from tests.ops_dcn.test_library import run_without_library


def test_selftest_reports_a_missing_library(tmp_path: Path) -> None:
    result = run_without_library(tmp_path, '-m', 'ops_dcn.selftest')
    assert result.returncode == 1
    assert result.stdout.startswith('FAIL: compiled library is not valid')
    assert 'make env' in result.stdout


def test_selftest_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest.main() == 0
    assert capsys.readouterr().out.endswith('PASS\n')


def test_selftest_finds_a_wrong_kernel(capsys: pytest.CaptureFixture[str],
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    right = ops_dcn.dcnv4
    monkeypatch.setattr(ops_dcn, 'dcnv4', lambda *args, **kw: right(*args, **kw) * 1.001)
    assert selftest.main() == 1
    assert 'FAIL: dcnv4 in float64 is not valid' in capsys.readouterr().out


def test_every_operator_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest.main() == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    calls = [name for name in OPERATORS for _ in ops_dcn.OPERATORS[name].variants]
    assert [line[0] for line in lines if line[1:2] == ['cpu']] == calls


@pytest.mark.parametrize('op', OPERATORS)
def test_wrong_output_of_any_operator_fails(op: str, capsys: pytest.CaptureFixture[str],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(ops_dcn, op)
    monkeypatch.setattr(ops_dcn, op, lambda *args, **options: right(*args, **options) + 1e-3)
    assert selftest.main() == 1
    assert f'FAIL: {op} in float64 is not valid' in capsys.readouterr().out


class _HalfGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        return tensor.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad / 2


@pytest.mark.parametrize('op', OPERATORS)
def test_wrong_gradient_of_any_operator_fails(op: str, capsys: pytest.CaptureFixture[str],
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is right: only the gradient of what comes last is not."""
    right = getattr(ops_dcn, op)
    last = [name for name, tensor in ops_dcn.OPERATORS[op].case(
        selftest._SIZES[ops_dcn.OPERATORS[op].kind]).tensors.items()
        if tensor.is_floating_point()][-1]

    def wrong(**arguments: object) -> Tensor:
        return right(**{**arguments, last: _HalfGradient.apply(arguments[last])})
    monkeypatch.setattr(ops_dcn, op, wrong)
    assert selftest.main() == 1
    assert f'FAIL: {op} in float64 is not valid: got a difference of' in capsys.readouterr().out
