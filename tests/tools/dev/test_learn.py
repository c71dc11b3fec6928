"""The gates of ``make learn``, with trainings replaced by their outcomes."""
from __future__ import annotations

import pytest

from tests.helpers import ROOT
from tools.dev import learn


def outcomes(monkeypatch: pytest.MonkeyPatch, trained: float, control: float) -> None:
    def fake(name, config, work_dir, options=()):
        value = control if options else trained
        gates = {metric: value for system in learn.SYSTEMS.values() for metric in system.gates}
        return learn.Outcome(gates, 1000, 2.0)
    monkeypatch.setattr(learn, 'train_and_test', fake)


@pytest.mark.parametrize(('trained', 'control', 'code', 'verdict'), [
    (99.0, 0.1, 0, 'ok'), (0.2, 0.1, 1, 'below threshold'), (99.0, 98.0, 1, 'control too good')])
def test_verdict(monkeypatch, capsys, trained, control, code, verdict):
    outcomes(monkeypatch, trained, control)
    assert learn.main([]) == code
    out = capsys.readouterr().out
    assert out.count(verdict) == sum(len(system.gates) for system in learn.SYSTEMS.values())
    for name in learn.SYSTEMS:
        assert name in out


def test_unknown_system_is_named(capsys):
    assert learn.main(['resnet']) == 2
    assert "got 'resnet', expected any of mask-rcnn" in capsys.readouterr().err


def test_failing_tool_ends_the_run_with_its_output(tmp_path, capsys):
    with pytest.raises(SystemExit, match='failed with exit code 2'):
        learn.run(['tools/train.py', 'no_such_config.py'], tmp_path / 'log', 'x')
    assert 'no_such_config.py' in capsys.readouterr().err


@pytest.mark.parametrize('name', learn.SYSTEMS)
def test_systems_name_existing_configs_with_frozen_control(name):
    assert (ROOT / learn.SYSTEMS[name].config).is_file()
    assert learn.SYSTEMS[name].control
