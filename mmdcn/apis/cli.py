"""What the command line tools share: options, exit codes, the summary line."""
from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import SupportsFloat

import torch
from mmengine.dist import is_main_process
from torch import distributed as torch_dist

from mmdcn.apis import config, inference
from mmdcn.checkpoints import CheckpointError, loading_policy
from mmdcn.errors import UserError


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
    add('--skip-bad-images', action='store_true',
        help='carry on without images that are missing or damaged, and count them')
    add('--trust-data', action='store_true',
        help='do not check the data sets before the start (saves time on sets checked before)')
    add_checkpoint_options(parser)


def build_image_parser(prog: str, description: str, *, out_dir: str, images: str | None = None,
                       ) -> argparse.ArgumentParser:
    """Command line of a tool that runs a network on single images.

    Args:
        prog: Name of the tool.
        description: What it does.
        out_dir: Folder of the results unless ``--out-dir`` names another.
        images: How many images or folders it takes, as ``nargs`` of argparse.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help="checkpoint file, or 'none' for the untrained network")
    parser.add_argument('images', metavar='IMAGE|FOLDER', nargs=images,
                        help='image, or folder of images')
    parser.add_argument('--out-dir', default=out_dir, help='where the results are written')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='change keys of the config')
    add_checkpoint_options(parser)
    return parser


def open_images(args: argparse.Namespace, skip_bad: bool = False,
                ) -> tuple[inference.Predictor, list[Path], int]:
    """What the options of :func:`build_image_parser` name; nothing is written yet.

    Args:
        args: The parsed command line.
        skip_bad: Skip damaged images.

    Returns:
        The network, the images, and the number of images skipped.

    Raises:
        UserError: One of them is not valid, or the results cannot be written.
    """
    cfg = config.load_config(args.config, args.cfg_options)
    config.require(cfg, 'test_dataloader')
    untrained = args.checkpoint == 'none'
    if not untrained:
        config.check_file(args.checkpoint, 'checkpoint')
    config.check_writable(args.out_dir, '--out-dir')
    sources = args.images if isinstance(args.images, list) else [args.images]
    found = [inference.find_images(source, skip_bad) for source in sources]
    predictor = inference.Predictor(cfg, None if untrained else args.checkpoint, args.device)
    return (predictor, [path for paths, _ in found for path in paths],
            sum(skipped for _, skipped in found))


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how checkpoints are loaded; :func:`run_tool` heeds them."""
    parser.add_argument('--trust-checkpoint', action='store_true',
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
    """Parse the command line, run a tool, and turn bad input into a message and exit code 2."""
    _quieten()
    try:
        args = parser.parse_args(argv)
        with loading_policy(getattr(args, 'trust_checkpoint', False),
                            getattr(args, 'min_match', None)):
            code = tool(args)
        if torch_dist.is_initialized():
            # A process that leaves while another still writes its results can abort in gloo.
            torch_dist.barrier()
        return code
    except SystemExit as stop:  # argparse has already said why
        return stop.code if isinstance(stop.code, int) else 2
    except (UserError, CheckpointError) as error:
        # Before the process group exists, the launcher's variables tell which process this is.
        rank = os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or '0'
        if is_main_process() and rank == '0':
            sys.stderr.write(f'{parser.prog}: error: {error}\n')
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f'{parser.prog}: stopped by the user\n')
        return 130
    finally:
        if torch_dist.is_initialized():
            torch_dist.destroy_process_group()


def _quieten() -> None:
    """Hide warnings of dependencies about their own insides, which no user can mend."""
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
