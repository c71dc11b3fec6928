"""The gates of ``make learn`` and what it does not train again, trainings replaced by outcomes."""
from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.helpers import ROOT
from tools.dev import learn, learn_results

GATES = sum(len(system.gates | system.ceilings) for system in learn.SYSTEMS.values())


@pytest.fixture
def trainings(monkeypatch, tmp_path) -> Callable[..., list[str]]:
    """Function that runs the tool on given outcomes; returns the names of what it trained."""
    parts = {'config': 'a', 'code': 'b'}
    monkeypatch.setattr(learn_results, 'digests', lambda config, options=(): {
        **parts, 'options': str(options)})
    monkeypatch.setattr(learn_results, 'current_commit', lambda config: 'abc1234')

    def run(*words, trained=99.0, control=0.1, code=0, meanwhile=None, **changes):
        done = []

        def fake(name, config, work_dir, options=()):
            done.append(name)
            parts.update(meanwhile or {})
            value = control if options else trained
            metrics = {}
            for owner, system in learn.SYSTEMS.items():
                error = 1 / (value if name == owner else control)
                metrics |= dict.fromkeys(system.gates, value)
                metrics |= dict.fromkeys(system.ceilings, error)
            return learn.Outcome(metrics, 1000, 2.0)
        monkeypatch.setattr(learn, 'train_and_test', fake)
        parts.update(changes)
        assert learn.main([*words, '--results', str(tmp_path / 'learn.json')]) == code
        return done

    return run


@pytest.mark.parametrize(('trained', 'control', 'code', 'verdict'), [
    (99.0, 0.1, 0, 'ok'), (0.15, 0.1, 1, 'threshold missed'), (99.0, 98.0, 1, 'control too good')])
def test_verdict(trainings, capsys, trained, control, code, verdict):
    trainings(trained=trained, control=control, code=code)
    out = capsys.readouterr().out
    assert out.count(f'| {verdict}') == GATES
    for name in learn.SYSTEMS:
        assert f'| {name} ' in out


def test_what_has_not_changed_is_not_trained_again(trainings, capsys):
    assert trainings('upernet', 'dino') == ['upernet', 'upernet control', 'dino', 'dino control']
    assert 'trained for 8 min' in capsys.readouterr().out
    assert trainings('dino') == []
    out = capsys.readouterr().out
    assert 'dino: nothing changed since abc1234' in out
    assert '| abc1234, kept' in out and 'trained for 0 min' in out
    assert trainings('dino', '--again') == ['dino', 'dino control']
    assert trainings('dino', data='new') == ['dino', 'dino control']
    assert 'data changed since abc1234' in capsys.readouterr().out


def test_a_kept_result_that_misses_its_gate_still_fails(trainings):
    trainings('dino', trained=0.2, code=1)
    assert trainings('dino', code=1) == []


def test_a_changed_control_alone_is_trained(trainings, monkeypatch):
    trainings('dino')
    system = learn.System(learn.SYSTEMS['dino'].config, {'coco/bbox_mAP_50': 0.5}, ('x=1',))
    monkeypatch.setitem(learn.SYSTEMS, 'dino', system)
    assert trainings('dino') == ['dino control']


def test_a_result_whose_code_changed_while_it_trained_is_not_kept(trainings, capsys):
    trainings('dino', meanwhile={'code': 'edited'})
    out = capsys.readouterr().out
    assert 'code changed while it trained; the result is not kept' in out
    assert '| abc1234, then changed / abc1234 ' in out
    assert trainings('dino') == ['dino']  # the control began after the edit


def test_a_system_that_is_the_control_of_another_is_trained_once(trainings):
    wanted = ['bevformer-v2-t2', 'bevformer-v2-t1', 'bevformer-v2-t1 control']
    assert trainings('bevformer-v2-t2', 'bevformer-v2-t1', '--again') == wanted
    assert trainings('bevformer-v2-t2') == []


def test_unknown_system_is_named(capsys):
    assert learn.main(['resnet']) == 2
    assert "got 'resnet', expected any of mask-rcnn" in capsys.readouterr().err


@pytest.mark.parametrize('name', learn.SYSTEMS)
def test_systems_name_existing_configs_and_controls(name):
    assert (ROOT / learn.SYSTEMS[name].config).is_file()
    control = learn.SYSTEMS[name].control
    assert control in learn.SYSTEMS if isinstance(control, str) else control
