"""Runs of two processes of which one meets a loss of NaN; writes what becomes of each.

    torchrun --nproc-per-node 2 -m tests.mmdcn.engine.two_processes FOLDER
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch
from mmengine.registry import DATASETS, MODELS
from torch import distributed

from mmdcn.apis import cli
from mmdcn.errors import UserError
from tests.mmdcn.engine.conftest import QuietRunner, ToyImages, toy_config
from tests.mmdcn.engine.test_finite_loss import Poisoned


def run(folder: Path, action: str) -> str:
    runner = QuietRunner.from_cfg(toy_config(
        folder, launcher='pytorch', model=dict(type='Poisoned', pictures='3'),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=6),
        default_hooks=dict(finite_loss=dict(type='FiniteLossHook', action=action))))
    try:
        runner.train()
    except UserError as error:
        return error.found
    good = all(torch.isfinite(value).all() for value in runner.model.parameters())
    return f'iteration {runner.iter}, weights finite: {good}'


def main(args: argparse.Namespace) -> int:
    MODELS.module_dict['Poisoned'], DATASETS.module_dict['ToyImages'] = Poisoned, ToyImages
    distributed.init_process_group('gloo')
    for action in ('stop', 'skip'):
        (args.folder / f'{action}{distributed.get_rank()}.txt').write_text(
            run(args.folder, action))
    return 0


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('folder', type=Path)
    cli.run_tool(main, parser, None)  # it knows how to leave a process group
