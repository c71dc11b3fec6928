#!/usr/bin/env python
"""Evaluate a checkpoint of any task; the config decides which.

    python tools/test.py CONFIG CHECKPOINT --metrics metrics.json --show-dir pictures
    python tools/test.py CONFIG CHECKPOINT --out predictions.json
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from mmdcn import writing  # noqa: E402
from mmdcn.apis import cli, config, launch, results  # noqa: E402
from mmdcn.engine import amp  # noqa: E402
from mmdcn.engine.build_errors import readable_errors  # noqa: E402
from mmdcn.engine.runner import CheckedRunner, restore_on_error  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(prog='test.py', description='Evaluate a checkpoint.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    cli.add_run_options(parser)
    parser.add_argument('--metrics', metavar='FILE', help='write the metrics (.json)')
    parser.add_argument('--out', metavar='FILE',
                        help="write the predictions: .json is COCO's result format (detection), "
                             '.pkl all that the model puts out (every task)')
    parser.add_argument('--show-dir', metavar='FOLDER',
                        help='write pictures of predictions beside ground truth')
    parser.add_argument('--tta', action='store_true',
                        help="test-time augmentation, by the config's tta_model and tta_pipeline")
    return parser


def test(args: argparse.Namespace) -> int:
    """Evaluate as the command line says; returns the exit code."""
    start = time.monotonic()
    cfg = config.load_config(args.config, args.cfg_options)
    config.require(cfg, 'test_dataloader', 'test_cfg', 'test_evaluator')
    config.set_work_dir(cfg, args.work_dir)
    config.set_randomness(cfg, args.seed, args.deterministic)
    config.set_log_backends(cfg)
    config.check_file(args.checkpoint, 'checkpoint')
    results.check_outputs({'out': args.out, 'metrics': args.metrics}, [
        args.checkpoint, *config.named_files(cfg)])
    config.set_test_outputs(cfg, args.out, args.show_dir)
    cfg.load_from, cfg.resume = args.checkpoint, False
    on_gpu = torch.cuda.is_available()
    if args.amp and on_gpu:
        cfg.test_cfg.fp16 = True
    if args.tta:
        config.set_tta(cfg)
    launch.start_launcher(args.launcher, cfg)
    runner = None
    with restore_on_error(cfg.work_dir, lambda: runner is not None and runner.started), \
            readable_errors(cfg):
        runner = CheckedRunner.from_cfg(cfg)
        skipped = runner.prepare_data(['test_dataloader'], args.skip_bad,
                                      args.trust_data)
        with nullcontext() if on_gpu or not args.amp else amp.bfloat16_features(runner.model):
            metrics = runner.test()
    if runner.rank == 0:
        if args.metrics:
            writing.write_text(args.metrics, json.dumps(metrics, indent=2, default=float) + '\n')
        print(f'test.py: done in {(time.monotonic() - start) / 60:.1f} min: '
              f'{cli.format_metrics(metrics)}; checkpoint {args.checkpoint}; '
              f'{skipped} images skipped; logs in {runner.log_dir}')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(test, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
