"""The launch scripts: what they hand to torch.distributed.run and to srun, and what they refuse."""
from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tools import test, train

SCRIPTS = ['dist_train', 'dist_test', 'slurm_train', 'slurm_test']
# What comes before the options: the words that are passed on as they are, in their place.
DIST = {'dist_train': ['my config.py'], 'dist_test': ['my config.py', 'last.pth']}
STAND_IN = """#!/bin/sh
for word in "$@"; do echo "$word"; done
exit ${STAND_IN_STATUS:-0}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder with stand-ins for python and srun that print their arguments, one per line."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name in ('python', 'srun', 'python-of-mine'):
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    return folder


def call(path: Path, script: str, *arguments: str,
         **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script in an environment of these variables alone, from a folder of its own."""
    env = {'PATH': f'{path}:/usr/bin:/bin', **variables}
    return subprocess.run([str(ROOT / 'tools' / f'{script}.sh'), *arguments], env=env, check=False,
                          capture_output=True, text=True, cwd=path)


def options_of(words: list[str]) -> dict[str, str]:
    """The words ``--name=value``."""
    return dict(word.split('=', 1) for word in words if word.startswith('--') and '=' in word)


@pytest.mark.parametrize('script', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test'])
def test_launch_scripts_say_how_to_use_them(script):
    done = subprocess.run([str(ROOT / 'tools' / f'{script}.sh')], capture_output=True, text=True)
    first = 'CONFIG' if script.startswith('dist') else 'PARTITION'
    assert done.returncode == 2 and f'{script}.sh {first}' in done.stderr


def test_slurm_script_passes_everything_on(tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    srun.chmod(0o755)
    env = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'GPUS': '16',
           'SRUN_ARGS': '--qos low', 'PYTHON': 'python3'}
    done = subprocess.run([str(ROOT / 'tools' / 'slurm_train.sh'), 'part', 'job', 'c.py', '--amp',
                           '--cfg-options', 'a=[1, 2]'], env=env, capture_output=True, text=True)
    words = done.stdout.splitlines()
    assert {'part', '--ntasks=16', '--ntasks-per-node=8', '--gres=gpu:8', '--qos'} < set(words)
    assert words[-6:] == ['c.py', '--launcher', 'slurm', '--amp', '--cfg-options', 'a=[1, 2]']


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize('given', [0, 1, 2, 3])
def test_too_few_arguments_start_nothing(path: Path, script: str, given: int) -> None:
    needed = {'dist_train': 2, 'dist_test': 3, 'slurm_train': 3, 'slurm_test': 4}[script]
    done = call(path, script, *['word'] * given)
    if given < needed:
        assert (done.returncode, done.stdout) == (2, '') and done.stderr.startswith('usage: ')
    else:
        assert done.returncode == 0 and done.stdout


@pytest.mark.parametrize('script', DIST)
def test_one_machine_is_the_default(path: Path, script: str) -> None:
    done = call(path, script, *DIST[script], '4')
    words = done.stdout.splitlines()
    assert done.returncode == 0 and words[:2] == ['-m', 'torch.distributed.run']
    assert options_of(words) == {
        '--nnodes': '1', '--node_rank': '0', '--nproc_per_node': '4',
        '--master_addr': '127.0.0.1', '--master_port': '29500'}


@pytest.mark.parametrize('script', DIST)
def test_several_machines_by_the_environment(path: Path, script: str) -> None:
    done = call(path, script, *DIST[script], '8', NNODES='3', NODE_RANK='2',
                MASTER_ADDR='node1', MASTER_PORT='29617')
    assert options_of(done.stdout.splitlines()) == {
        '--nnodes': '3', '--node_rank': '2', '--nproc_per_node': '8',
        '--master_addr': 'node1', '--master_port': '29617'}


@pytest.mark.parametrize('script', DIST)
def test_words_reach_the_tool_as_they_are(path: Path, script: str) -> None:
    """Also from another folder, and words with spaces, quotes or stars."""
    more = ['--cfg-options', 'a=[1, 2]', "b='*'", '--work-dir', 'my work']
    words = call(path, script, *DIST[script], '2', *more).stdout.splitlines()
    tool = next(i for i, word in enumerate(words) if word.endswith('.py'))
    assert Path(words[tool]).samefile(ROOT / 'tools' / f'{script.removeprefix("dist_")}.py')
    assert words[tool + 1:] == [*DIST[script], '--launcher', 'pytorch', *more]


@pytest.mark.parametrize(('script', 'before'), [
    ('slurm_train', ['c.py']), ('slurm_test', ['c.py', 'last.pth'])])
def test_slurm_starts_the_tool(path: Path, script: str, before: list[str]) -> None:
    done = call(path, script, 'part', 'my job', *before, '--amp')
    words = done.stdout.splitlines()
    assert done.returncode == 0 and words[:2] == ['-p', 'part']
    assert options_of(words) == {
        '--job-name': 'my job', '--gres': 'gpu:8', '--ntasks': '8', '--ntasks-per-node': '8',
        '--cpus-per-task': '5', '--kill-on-bad-exit': '1'}
    start = words.index('python')
    assert words[start + 1] == '-u'
    assert Path(words[start + 2]).samefile(ROOT / 'tools' / f'{script.removeprefix("slurm_")}.py')
    assert words[start + 3:] == [*before, '--launcher', 'slurm', '--amp']


@pytest.mark.parametrize(('variables', 'tasks', 'per_node'), [
    ({}, '8', '8'), ({'GPUS': '1'}, '1', '1'), ({'GPUS': '4'}, '4', '4'),
    ({'GPUS': '16'}, '16', '8'), ({'GPUS': '16', 'GPUS_PER_NODE': '4'}, '16', '4')])
@pytest.mark.parametrize('script', ['slurm_train', 'slurm_test'])
def test_tasks_of_slurm_are_spread_over_machines(path: Path, script: str, variables: dict,
                                                 tasks: str, per_node: str) -> None:
    done = call(path, script, 'part', 'job', 'c.py', 'last.pth', CPUS_PER_TASK='3', **variables)
    options = options_of(done.stdout.splitlines())
    assert (options['--ntasks'], options['--ntasks-per-node']) == (tasks, per_node)
    assert options['--gres'] == f'gpu:{per_node}' and options['--cpus-per-task'] == '3'


def test_further_options_of_srun_come_before_the_tool(path: Path) -> None:
    done = call(path, 'slurm_test', 'part', 'job', 'c.py', 'x.pth', SRUN_ARGS='--qos low -t 5')
    words = done.stdout.splitlines()
    start = words.index('python')
    assert words[start - 4:start] == ['--qos', 'low', '-t', '5']


@pytest.mark.parametrize('script', SCRIPTS)
def test_python_can_be_chosen(path: Path, script: str) -> None:
    (path / 'python').write_text('#!/bin/sh\necho the wrong one\n')
    done = call(path, script, 'a', 'b', 'c', 'd', PYTHON='python-of-mine')
    assert done.returncode == 0 and 'the wrong one' not in done.stdout
    assert ('python-of-mine' in done.stdout.splitlines()) == script.startswith('slurm')


@pytest.mark.parametrize('script', SCRIPTS)
def test_failure_of_the_run_is_that_of_the_script(path: Path, script: str) -> None:
    done = call(path, script, 'a', 'b', 'c', 'd', STAND_IN_STATUS='37')
    assert done.returncode == 37


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm'])
def test_tools_know_the_launchers(launcher: str) -> None:
    options = ['--launcher', launcher]
    assert train.build_parser().parse_args(['c.py', *options]).launcher == launcher
    assert test.build_parser().parse_args(['c.py', 'x.pth', *options]).launcher == launcher
