"""The environment report."""
from __future__ import annotations

import pytest

from tools import collect_env


def test_this_environment_is_ok(capsys):
    assert collect_env.main([]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == 'OK'
    assert any(line.startswith('ops_dcn') and 'cpu' in line for line in lines)


def test_failing_item_names_the_command_that_mends_it(monkeypatch, capsys):
    monkeypatch.setattr(collect_env, 'checks', lambda: [
        lambda: collect_env.package('gone', 'no-such-distribution', 'no_such_module'),
        lambda: collect_env.package('NumPy', 'numpy', 'numpy', expected='0.0.1')])
    assert collect_env.main([]) == 1
    out = capsys.readouterr().out
    assert ("FAILS: gone: ModuleNotFoundError: No module named 'no_such_module'; "
            'fix it: make env') in out
    assert 'expected 0.0.1; fix it: ' in out
    assert 'numpy==0.0.1' in out
    assert out.strip().endswith('2 of 2 items fail')


def test_ops_that_do_not_load_are_reported(monkeypatch):
    import ops_dcn

    def broken(*args, **kwargs):
        raise ImportError('ops_dcn is not built: run make env')
    monkeypatch.setattr(ops_dcn, 'dcnv4', broken)
    item = collect_env.ops_item()
    assert 'not built' in item.problem


@pytest.mark.parametrize('version', ['2.9.1', '2.10.0', '2.13.0+cpu'])
def test_torch_floor(monkeypatch, version):
    import torch
    monkeypatch.setattr(torch, '__version__', version)
    assert bool(collect_env.torch_item().problem) == (version == '2.9.1')
