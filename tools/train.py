#!/usr/bin/env python
"""Train a model of any task; the config decides which.

    python tools/train.py configs/mini/upernet_flash-internimage-pico_1xb16-2k_mini-ade-128x128.py
"""
from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdcn.apis import cli, config, launch  # noqa: E402
from mmdcn.engine.build_errors import readable_errors  # noqa: E402
from mmdcn.engine.runner import CheckedRunner, restore_on_error  # noqa: E402
from mmdcn.engine.saving import require_checkpoint  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(prog='train.py', description='Train a model.')
    parser.add_argument('config', help='config file')
    cli.add_run_options(parser)
    parser.add_argument('--resume', nargs='?', const='auto', metavar='PATH',
                        help='continue from PATH, or from the last checkpoint of the work folder')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help="scale the learning rate with the batch size, from the config's "
                             'auto_scale_lr.base_batch_size')
    return parser


def train(args: argparse.Namespace) -> int:
    """Train as the command line says; returns the exit code."""
    start = time.monotonic()
    cfg = config.load_config(args.config, args.cfg_options)
    config.require(cfg, 'train_dataloader', 'train_cfg', 'optim_wrapper')
    config.set_work_dir(cfg, args.work_dir)
    config.set_amp(cfg, args.amp)
    config.set_randomness(cfg, args.seed, args.deterministic)
    config.set_log_backends(cfg)
    if args.auto_scale_lr:
        config.set_auto_scale_lr(cfg)
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
        if args.resume == 'auto':
            require_checkpoint(cfg.work_dir)  # before anything is built
    if cfg.get('load_from'):
        config.check_file(cfg.load_from, 'resume' if args.resume else 'load_from')
    launch.start_launcher(args.launcher, cfg)
    runner = None
    with restore_on_error(cfg.work_dir, lambda: runner is not None and runner.started), \
            readable_errors(cfg):
        runner = CheckedRunner.from_cfg(cfg)
        skipped = runner.prepare_data(['train_dataloader', 'val_dataloader'], args.skip_bad,
                                      args.trust_data)
        runner.train()
    if runner.rank == 0:
        print(f'train.py: done in {(time.monotonic() - start) / 60:.1f} min, iteration '
              f'{runner.iter}: {cli.format_metrics(runner.last_metrics)}; '
              f'checkpoint {runner.kept_checkpoint()}; {skipped} images skipped; '
              f'logs in {runner.log_dir}')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(train, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
