"""What the command line tools share: options, messages in flags, exit codes, the summary line.

PyTorch and what needs it are imported where they are used: not every tool does.
"""
from __future__ import annotations

import argparse
import ast
import logging
import multiprocessing
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, SupportsFloat

from mmdcn.errors import SampleError, UserError

if TYPE_CHECKING:
    from mmdcn.apis import inference

# What the library calls an argument in its messages: `min_match`, `trust=True`, `resume='PATH'`.
_ARGUMENT = re.compile(r'`([a-z]\w*)(?:=([^`]+))?`')


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share."""
    add = parser.add_argument
    add('--work-dir', help='folder for logs and checkpoints (default: work_dirs/CONFIG_NAME)')
    add('--amp', action='store_true',
        help='mixed precision: float16 on a GPU, bfloat16 on a CPU')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
        help='change keys of the config, for example train_cfg.max_iters=100')
    add('--launcher', choices=['none', 'pytorch', 'slurm'], default='none',
        help='how the processes of a distributed run were started')
    add('--local-rank', '--local_rank', type=int, help=argparse.SUPPRESS)
    add('--seed', type=int, help='seed of all random numbers')
    add('--deterministic', action='store_true', help='use deterministic algorithms only')
    add('--skip-bad-images', dest='skip_bad', action='store_true',
        help='carry on without images that are missing or damaged, and count them')
    add('--trust-data', action='store_true',
        help='do not check the data sets before the start (saves time on sets checked before)')
    add_checkpoint_options(parser)


def build_image_parser(prog: str, description: str, *, out_dir: str, images: str = '+',
                       ) -> argparse.ArgumentParser:
    """Command line of a tool that runs a network on single images.

    Args:
        prog: Name of the tool.
        description: What it does.
        out_dir: Folder of the results unless ``--out-dir`` names another.
        images: How many images, folders and patterns it takes, as ``nargs`` of argparse.
    """
    import torch
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help="checkpoint file, or 'none' for the untrained network")
    parser.add_argument('images', metavar='IMAGE|FOLDER|PATTERN', nargs=images,
                        help="images, folders (searched with all below them) and patterns in "
                             "quotes, such as 'photos/**/*.jpg'; tokens of samples where the "
                             "model looks at several pictures together")
    parser.add_argument('--out-dir', default=out_dir,
                        help='folder of the results, with the folder structure of the images; '
                             'none of the images may lie beside the results '
                             '(default: %(default)s)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='change keys of the config')
    add_checkpoint_options(parser)
    return parser


def open_images(args: argparse.Namespace, skip_bad: bool = False,
                ) -> tuple[inference.Predictor, dict[str, str], int]:
    """What the options of :func:`build_image_parser` name; nothing is written yet.

    Args:
        args: The parsed command line.
        skip_bad: Skip damaged images.

    Returns:
        The network, the images, each with the path of its results without suffix, and the number
        of images skipped.

    Raises:
        UserError: One of them is not valid, or the results cannot be written.
    """
    from mmdcn.apis import config, inference, results
    cfg = config.load_config(args.config, args.cfg_options)
    config.require(cfg, 'test_dataloader')
    untrained = args.checkpoint == 'none'
    if not untrained:
        config.check_file(args.checkpoint, 'checkpoint')
    config.check_writable(args.out_dir, 'out_dir')
    tokens = inference.looks_at_samples(cfg)
    if tokens:
        skipped, places = 0, {token: os.path.join(args.out_dir, os.path.basename(token))
                              for token in args.images}
    else:
        found, skipped = inference.find_images(args.images, skip_bad, args.out_dir)
        places = results.place_results(found, args.out_dir)
    for place in places.values():
        results.check_outputs({'out_dir': f'{place}.json'}, [args.config])
    predictor = inference.Predictor(cfg, None if untrained else args.checkpoint, args.device)
    for token in places if tokens else ():
        predictor.check(token)
    return predictor, places, skipped


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how checkpoints are loaded; :func:`run_tool` heeds them."""
    parser.add_argument('--trust-checkpoint', dest='trust', action='store_true',
                        help='load checkpoints even if they hold more than tensors and plain '
                             'data; such a file can run any code on this machine')
    parser.add_argument('--min-match', type=_share, metavar='SHARE',
                        help="least share of a model's tensors that a checkpoint must fill "
                             '(default: 0.99)')


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'got {text}, expected a number within 0..1')
    return value


def run_tool(tool: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser,
             argv: list[str] | None) -> int:
    """Parse the command line, run a tool, and turn bad input into a message and exit code 2.

    Args:
        tool: Does the work with the parsed arguments; returns the exit code.
        parser: Its command line. Where an argument of the library is an option, ``dest`` is the
            library's name, by which messages find the flag (:func:`in_flags`).
        argv: The command line; None takes that of the process.

    Returns:
        What the tool returned, 2 for bad input, 130 when the user stopped it. A process that has
        joined a process group ends with that code instead.
    """
    _quieten()
    joined = None
    try:
        code = _outcome(tool, parser, argv)
    finally:
        if joined := _process_group():
            joined.destroy_process_group()
    if joined:
        _exit_at_once(code)
    return code


def _outcome(tool: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser,
             argv: list[str] | None) -> int:
    """As :func:`run_tool`, but a process group stays."""
    try:
        args = parser.parse_args(argv)
        with _log_in_flags(parser), _checkpoint_policy(args):
            code = tool(args)
        if group := _process_group():
            # A process that leaves while another still writes its results can abort in gloo.
            group.barrier()
        return code
    except SystemExit as stop:  # argparse has already said why
        if isinstance(stop.code, str):
            sys.stderr.write(f'{stop.code}\n')
            return 1
        return stop.code or 0
    except UserError as error:
        # Before the process group exists, the launcher's variables tell which process this is.
        group = _process_group()
        rank = group.get_rank() if group else \
            os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or 0
        if str(rank) == '0' or isinstance(error, SampleError):
            sys.stderr.write(f'{parser.prog}: error: {in_flags(error, parser)}\n')
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f'{parser.prog}: stopped by the user\n')
        return 130


def _exit_at_once(code: int) -> None:
    """End this process without Python's own teardown.

    Threads of gloo outlive the group where a model still knows it. One that drops a tensor while
    Python is taken down waits for an interpreter that is no more, and aborts the process
    (pytorch/pytorch pull request 179291).
    """
    drawing = sys.modules.get('mmengine.visualization')
    if drawing is not None and drawing.Visualizer._instance_dict:
        # A run that bad input stopped has not closed it; the last of its curves would be missing.
        drawing.Visualizer.get_current_instance().close()
    for worker in multiprocessing.active_children():
        worker.terminate()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _checkpoint_policy(args: argparse.Namespace) -> AbstractContextManager[None]:
    """The policy that :func:`add_checkpoint_options` asks for, where a tool has them."""
    if not hasattr(args, 'trust'):
        return nullcontext()
    from mmdcn.checkpoints import loading_policy
    return loading_policy(args.trust, args.min_match)


def _process_group() -> Any:
    """The module ``torch.distributed`` where this process has joined a group, else None."""
    module = sys.modules.get('torch.distributed')
    return module if module is not None and module.is_initialized() else None


def in_flags(message: UserError | str, parser: argparse.ArgumentParser) -> str:
    """A message of the library in the words of a command line.

    Arguments stand in messages as in Python: as the name of an error, or within backquotes, with
    or without a value. They become flags of the parser: `` `min_match` `` becomes ``--min-match``,
    `` `trust=True` `` ``--trust-checkpoint``, `` `cfg_options=['a=1', 'b=2']` ``
    ``--cfg-options a=1 b=2``; positional arguments get the name of the usage line. What is no
    argument of this parser stays as it is.

    Args:
        message: An error, or text of the library such as a line of the log.
        parser: The tool's command line.
    """
    actions = {action.dest: action for action in parser._actions}

    def argument(match: re.Match[str]) -> str:
        action = actions.get(match[1])
        return match[0] if action is None else _flag(action) + _value(action, match[2])

    if isinstance(message, UserError):
        name, *parts = message.args
        name = _flag(actions[name]) if name in actions else name
        message = str(UserError(name, *parts))
    return _ARGUMENT.sub(argument, message)


def _flag(action: argparse.Action) -> str:
    """An argument as users type it: its first long option, or the name of a positional one."""
    if not action.option_strings:
        return action.metavar if isinstance(action.metavar, str) else action.dest
    return next((text for text in action.option_strings if text.startswith('--')),
                action.option_strings[0])


def _value(action: argparse.Action, text: str | None) -> str:
    """A Python value as users type it after the option; nothing after a switch."""
    if text is None or action.nargs == 0:
        return ''
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return f' {text}'
    values = value if isinstance(value, list | tuple) else [value]
    return ''.join(f' {item}' for item in values)


@contextmanager
def _log_in_flags(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Let the log name arguments as the command line does while the block runs."""
    make = logging.getLogRecordFactory()

    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if isinstance(record.msg, str) and '`' in record.msg:
            record.msg = in_flags(record.msg, parser)
        return record

    logging.setLogRecordFactory(make_record)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)


def _quieten() -> None:
    """Hide warnings of dependencies about their own insides, which no user can fix."""
    for text in ('torch.meshgrid: in an upcoming release', '.*pkg_resources is deprecated',
                 'On January 1, 2023, MMCV', 'TypedStorage is deprecated',
                 'faster_coco_eval is not installed', '`reduce_zero_label` will be deprecated',
                 'Default ``avg_non_ignore`` is False',
                 'Setting (OMP|MKL)_NUM_THREADS', '`broadcast_buffers` is deprecated',
                 'The draw is False', 'Warning: The (bbox|polygon) is out of bounds'):
        warnings.filterwarnings('ignore', message=text)


def format_metrics(metrics: dict[str, SupportsFloat] | None) -> str:
    """Metrics as ``name=0.1234`` in one line, without those that COCO marks as undefined (-1)."""
    values = {name: float(value) for name, value in (metrics or {}).items()}
    return ' '.join(f'{name}={value:.4f}' for name, value in values.items()
                    if value != -1) or 'no metrics'
