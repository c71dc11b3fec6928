"""The environment maker's decisions, without installing anything."""
from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tools.dev import make_env


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> make_env.Environment:
    env = make_env.Environment(tmp_path / 'venv')
    (env.folder / 'bin').mkdir(parents=True)
    (env.folder / 'bin' / 'python').touch()
    monkeypatch.setattr(make_env, 'check_compiler', lambda: None)
    monkeypatch.setattr(make_env.Environment, 'create', lambda self: None)
    return env


def record_actions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace every step's action by a note of its name."""
    ran: list[str] = []
    steps = make_env.Environment.steps

    def noted(self: make_env.Environment) -> list:
        return [(name, key, lambda name=name: ran.append(name)) for name, key, _ in steps(self)]
    monkeypatch.setattr(make_env.Environment, 'steps', noted)
    return ran


def test_second_call_does_nothing(environment, monkeypatch, capsys):
    ran = record_actions(monkeypatch)
    make_env.make_env(environment.folder)
    assert ran[0] == 'build tools' and 'torch' in ran and ran[-1] == 'ops_dcn'
    ran.clear()
    make_env.make_env(environment.folder)
    assert ran == []
    assert 'is up to date' in capsys.readouterr().out


def test_changed_input_repeats_its_step_only(environment, monkeypatch):
    ran = record_actions(monkeypatch)
    make_env.make_env(environment.folder)
    ran.clear()
    state = json.loads(environment.state_file.read_text())
    environment.state_file.write_text(json.dumps({**state, 'ops_dcn': 'other'}))
    make_env.make_env(environment.folder)
    assert ran == ['ops_dcn']


def test_failed_step_is_repeated(environment, monkeypatch):
    ran = record_actions(monkeypatch)
    steps = make_env.Environment.steps

    def failing(self):
        def fail():
            raise make_env.EnvError('no room')
        return [(n, k, fail if n == 'mmcv' else a) for n, k, a in steps(self)]
    monkeypatch.setattr(make_env.Environment, 'steps', failing)
    with pytest.raises(make_env.EnvError, match='no room'):
        make_env.make_env(environment.folder)
    monkeypatch.setattr(make_env.Environment, 'steps', steps)
    ran.clear()
    make_env.make_env(environment.folder)
    assert ran[0] == 'mmcv'


@pytest.mark.parametrize('version', ['2.13.0+cpu', '2.11.0+cu128'])
def test_working_torch_is_kept(environment, monkeypatch, capsys, version):
    installed = []
    monkeypatch.setattr(make_env, 'probe_torch',
                        lambda python: dict(torch=version, torchvision='0.28.0', site='/x'))
    monkeypatch.setattr(make_env.Environment, 'pip', lambda self, *a, **k: installed.append(a))
    environment.install_torch()
    assert installed == []
    assert f'keeping torch {version}' in capsys.readouterr().out


def test_pip_holds_the_torch_in_use(environment, monkeypatch):
    commands = []
    monkeypatch.setattr(make_env, 'probe_torch',
                        lambda python: dict(torch='2.12.1+cpu', torchvision='0.27.1+cpu'))
    monkeypatch.setattr(make_env, 'run_logged', lambda command, *rest: commands.append(command))
    environment.pip('something')
    constraints = Path(commands[0][commands[0].index('-c') + 1]).read_text()
    assert 'torch===2.12.1+cpu\n' in constraints
    assert 'torchvision===0.27.1+cpu\n' in constraints


@pytest.mark.parametrize(('version', 'uses_wheel'), [('2.13.0+cu130', True), ('2.12.1', False)])
def test_mmcv_wheel_only_for_its_torch(environment, monkeypatch, tmp_path, version, uses_wheel):
    (tmp_path / 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl').touch()
    monkeypatch.setenv('MMDCN_WHEELS', str(tmp_path))
    monkeypatch.setattr(make_env, 'probe_torch', lambda python: dict(torch=version))
    calls = []
    monkeypatch.setattr(make_env.Environment, 'pip', lambda self, *a, **k: calls.append(a))
    environment.python = sys.executable
    environment.install_mmcv()
    assert ('--find-links' in calls[0]) == uses_wheel
    assert ('--no-cache-dir' in calls[0]) != uses_wheel


def test_probe_finds_the_torch_of_this_interpreter():
    import torch
    found = make_env.probe_torch(sys.executable)
    assert found is not None
    assert found['torch'] == torch.__version__


def test_missing_compiler_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    assert make_env.main(['--venv', str(tmp_path / 'venv')]) == 2
    message = capsys.readouterr().err
    assert 'C++ compiler is missing' in message
    assert 'apt-get install g++' in message
    assert not (tmp_path / 'venv').exists()


@pytest.mark.parametrize('version', [(3, 9, 1), (3, 14, 0)])
def test_wrong_python_is_named(monkeypatch, capsys, tmp_path, version):
    monkeypatch.setattr(sys, 'version_info', version)
    assert make_env.main(['--venv', str(tmp_path / 'venv')]) == 2
    said = capsys.readouterr().err
    assert 'expected 3.10 to 3.13' in said
    assert 'uv python install 3.11 && make env PYTHON=$(uv python find 3.11)' in said


def test_one_range_of_pythons_everywhere():
    found = {name: re.findall(r'3\.10 to (3\.\d+)|<= \(3, (\d+)\)', (ROOT / name).read_text())
             for name in ('Makefile', 'README.md', 'docs/environment.md', 'tools/collect_env.py',
                          'tools/dev/make_env.py')}
    assert all(found.values())
    assert {text.removeprefix('3.') for pairs in found.values() for pair in pairs
            for text in pair if text} == {'13'}


@pytest.mark.parametrize('new', [True, False])
def test_a_folder_that_was_there_survives_a_venv_that_fails(monkeypatch, tmp_path, new):
    folder = tmp_path / 'mine'
    if not new:
        folder.mkdir()
        (folder / 'thesis.txt').write_text('mine')

    def fail(command, **kwargs):
        if '-m' in command:
            (folder / 'bin').mkdir(parents=True)
            raise subprocess.CalledProcessError(1, command, 'no ensurepip')
        return subprocess.CompletedProcess(command, 1)
    monkeypatch.setattr(subprocess, 'run', fail)
    with pytest.raises(make_env.EnvError, match='venv cannot be made'):
        make_env.Environment(folder).create()
    assert folder.exists() != new
    assert new or (folder / 'thesis.txt').read_text() == 'mine'


def test_failing_command_shows_its_end_and_its_log(tmp_path):
    log = tmp_path / 'log'
    with pytest.raises(make_env.EnvError, match='the reason') as error:
        make_env.run_logged([sys.executable, '-c', 'print("the reason"); raise SystemExit(3)'], log)
    assert str(log) in str(error.value)
