"""The frame of the tools: arguments of the library become flags, errors become exit codes."""
from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmdcn.apis import cli, config
from mmdcn.apis.inference import find_images
from mmdcn.checkpoints import CheckpointError, current_policy
from mmdcn.errors import SampleError, UserError
from tests.helpers import ROOT
from tools import convert_checkpoint, predict, test, train


def build_parser() -> argparse.ArgumentParser:
    """A command line with every kind of option."""
    parser = argparse.ArgumentParser(prog='tool.py')
    parser.add_argument('config')
    parser.add_argument('images', metavar='IMAGE|FOLDER', nargs='*')
    parser.add_argument('--resume', nargs='?', const='auto')
    parser.add_argument('--no-ema', dest='averaged', action='store_false')
    parser.add_argument('-v', '--verbose', action='store_true')
    parser.add_argument('-k', dest='top', type=int)
    parser.add_argument('--size', nargs=2, type=int)
    cli.add_run_options(parser)
    return parser


@pytest.mark.parametrize(('said', 'shown'), [
    ('allow less with `min_match`', 'allow less with --min-match'),
    ('`trust=True` loads it', '--trust-checkpoint loads it'),
    ('drop `averaged`', 'drop --no-ema'),
    ('`skip_bad=True`, `verbose`', '--skip-bad-images, --verbose'),
    ("name it: `resume='PATH'`", 'name it: --resume PATH'),
    ("`cfg_options=['a=1', 'b.c=[2]']`", '--cfg-options a=1 b.c=[2]'),
    ('`size=(32, 64)` or `size=SIZE`', '--size 32 64 or --size SIZE'),
    ('`top=5`', '-k 5'),
    ('in the `config` or `images`', 'in the config or IMAGE|FOLDER'),
    ('run `make wheel`, see `other` and `other=1`', 'run `make wheel`, see `other` and `other=1`'),
    ('resume and min_match', 'resume and min_match'),
    ('``min_match_`` and `MIN`', '``min_match_`` and `MIN`'),
])
def test_arguments_become_flags(said: str, shown: str) -> None:
    assert cli.in_flags(said, build_parser()) == shown
    error = UserError('x', f'got {said}', said, said)
    assert cli.in_flags(error, build_parser()) == str(UserError('x', f'got {shown}', shown, shown))


@pytest.mark.parametrize(('name', 'shown'), [
    ('min_match', '--min-match'), ('averaged', '--no-ema'), ('skip_bad', '--skip-bad-images'),
    ('config', 'config'), ('images', 'IMAGE|FOLDER'), ('local_rank', '--local-rank'),
    ('min match', 'min match'), ('train_dataloader.dataset', 'train_dataloader.dataset'),
])
def test_names_of_errors_become_flags(name: str, shown: str) -> None:
    error = CheckpointError(name, 'got 1', 'a', details=f'{name} stays')
    assert cli.in_flags(error, build_parser()) == \
        f'{shown} is not valid: got 1, expected a\n{name} stays'
    assert error.name == name


@pytest.mark.parametrize(('parser', 'arguments'), [
    (train.build_parser(), ['resume', 'auto_scale_lr', 'work_dir', 'amp', 'launcher', 'trust',
                            'min_match', 'skip_bad', 'trust_data', 'cfg_options']),
    (test.build_parser(), ['out', 'show_dir', 'tta', 'checkpoint', 'skip_bad', 'trust']),
    (predict.build_parser(), ['out_dir', 'skip_bad', 'trust', 'min_match', 'device', 'top']),
    (convert_checkpoint.build_parser(), [
        'family', 'inverse', 'averaged', 'trust', 'min_match',
        *vars(convert_checkpoint.Options())]),
])
def test_tools_know_the_arguments_that_messages_name(parser: argparse.ArgumentParser,
                                                     arguments: list[str]) -> None:
    for name in arguments:
        assert cli.in_flags(f'`{name}`', parser) != f'`{name}`'


def test_the_frame_alone_does_without_pytorch() -> None:
    code = ("import sys; from mmdcn.apis import cli; import argparse; parser = "
            "argparse.ArgumentParser(); cli.run_tool(lambda args: 0, parser, []); "
            "print('torch' in sys.modules or 'mmengine' in sys.modules)")
    got = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                         check=True)
    assert got.stdout.strip() == 'False'


JOINS_A_GROUP = """
import argparse, atexit, multiprocessing, sys, time
from torch import distributed
from mmdcn.apis import cli

def tool(args):
    distributed.init_process_group('gloo', f'file://{sys.argv[1]}', rank=0, world_size=1)
    multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,), daemon=True).start()
    print('worked', end='')
    return 3

atexit.register(print, 'taken down')
sys.exit(cli.run_tool(tool, argparse.ArgumentParser(), []))
"""


def test_process_of_a_group_ends_before_python_takes_itself_down(tmp_path: Path) -> None:
    """Which a thread of gloo that still drops a tensor would answer with an abort."""
    got = subprocess.run([sys.executable, '-c', JOINS_A_GROUP, tmp_path / 'store'], cwd=ROOT,
                         capture_output=True, text=True, timeout=50)  # workers have ended, too
    assert (got.returncode, got.stdout) == (3, 'worked'), got.stderr


STOPS_BEFORE_ITS_END = """
import argparse, sys
from torch import distributed
from mmdcn.apis import cli
from mmdcn.errors import UserError

def tool(args):
    distributed.init_process_group('gloo', f'file://{sys.argv[1]}/store', rank=0, world_size=1)
    from mmengine.visualization import Visualizer
    visualizer = Visualizer.get_instance(
        'run', vis_backends=[dict(type='TensorboardVisBackend')], save_dir=sys.argv[1])
    visualizer.add_scalar('last_loss', 1.0)
    raise UserError('loss', 'NaN')

sys.exit(cli.run_tool(tool, argparse.ArgumentParser(), []))
"""


def test_process_of_a_group_that_is_stopped_keeps_its_curves(tmp_path: Path) -> None:
    got = subprocess.run([sys.executable, '-c', STOPS_BEFORE_ITS_END, tmp_path], cwd=ROOT,
                         capture_output=True, text=True, timeout=100)
    assert got.returncode == 2, got.stderr
    events, = tmp_path.glob('vis_data/events.out.tfevents.*')
    assert b'last_loss' in events.read_bytes()


def run(tool: Callable[[argparse.Namespace], int], *argv: str) -> int:
    return cli.run_tool(tool, build_parser(), ['c.py', *argv])


def stop(error: BaseException) -> Callable[[argparse.Namespace], int]:
    """A tool that raises."""
    def tool(args: argparse.Namespace) -> int:
        raise error
    return tool


@pytest.mark.parametrize(('error', 'code', 'err'), [
    (UserError('resume', 'got 1', remedy='drop `resume`'), 2,
     'tool.py: error: --resume is not valid: got 1; drop --resume\n'),
    (CheckpointError('checkpoint', 'got 1', remedy='`trust=True`'), 2,
     'tool.py: error: checkpoint is not valid: got 1; --trust-checkpoint\n'),
    (KeyboardInterrupt(), 130, 'tool.py: stopped by the user\n'),
    (SystemExit(3), 3, ''), (SystemExit(), 0, ''), (SystemExit('no more'), 1, 'no more\n'),
])
def test_exit_codes(capsys: pytest.CaptureFixture[str], error: BaseException, code: int,
                    err: str) -> None:
    assert run(stop(error)) == code
    assert capsys.readouterr().err == err


def test_other_errors_are_not_the_users() -> None:
    with pytest.raises(ValueError, match='a bug'):
        run(stop(ValueError('a bug')))


def test_a_tool_returns_its_code_and_bad_options_end_with_two(
        capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda args: 1) == 1
    assert run(lambda args: 0, '--size', 'x', 'y') == 2
    assert 'tool.py: error: argument --size' in capsys.readouterr().err
    assert run(lambda args: 0, '--help') == 0


@pytest.mark.parametrize(('argv', 'policy'), [
    ([], (False, 0.99)), (['--trust-checkpoint', '--min-match', '0.5'], (True, 0.5))])
def test_the_loading_policy_holds_for_the_tool_alone(argv: list[str],
                                                     policy: tuple[bool, float]) -> None:
    seen = []
    assert run(lambda args: seen.append(current_policy()) or 0, *argv) == 0
    assert (seen[0].trust, seen[0].min_match) == policy
    assert not current_policy().trust


def test_log_lines_name_flags_while_the_tool_runs(caplog: pytest.LogCaptureFixture) -> None:
    def tool(args: argparse.Namespace) -> int:
        logging.getLogger('x').warning('`trust=True`: %s, `other`', 'a.pth')
        return 0
    assert run(tool) == 0
    logging.getLogger('x').warning('`trust=True`')
    assert [record.getMessage() for record in caplog.records] == [
        '--trust-checkpoint: a.pth, `other`', '`trust=True`']


def test_the_library_names_its_arguments(tmp_path: Path) -> None:
    (tmp_path / 'a.jpg').write_bytes(b'')
    with pytest.raises(UserError) as caught:
        find_images([str(tmp_path)], skip_bad=False)
    assert str(caught.value) == (
        'images is not valid: 1 of 1 images are damaged; fix them, or carry on without them: '
        f'`skip_bad=True`\n  {tmp_path}/a.jpg: empty file')
    with pytest.raises(UserError, match='^work_dir is not valid: .*a.jpg is a file, expected a'):
        config.set_work_dir(config.Config({}), str(tmp_path / 'a.jpg' / 'w'))


@pytest.mark.parametrize(('rank', 'kind', 'said'), [
    ('0', UserError, True), ('1', UserError, False), ('1', SampleError, True)])
def test_error_is_said_once_and_that_of_a_sample_by_its_process(monkeypatch, capsys, rank, kind,
                                                                said):
    def fail(args: argparse.Namespace) -> int:
        raise kind('x', 'got 1')

    monkeypatch.setenv('RANK', rank)
    assert cli.run_tool(fail, argparse.ArgumentParser(prog='tool.py'), []) == 2
    assert ('x is not valid: got 1' in capsys.readouterr().err) == said
