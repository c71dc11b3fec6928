#!/usr/bin/env python
"""Write a config that trains a model on a data set of one's own.

    python tools/new_config.py --base CONFIG --data my_data --out my_config.py
    python tools/train.py my_config.py

Looks for annotations in COCO's format (detection), folders of pictures and label maps
(segmentation) or class folders (classification), as the base config's task asks; says what it
found, draws some pictures with their annotations, and reads everything as a training would.
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmengine.config import Config  # noqa: E402

from mmdcn.apis import cli, config, results  # noqa: E402
from mmdcn.apis.inference import task_scope  # noqa: E402
from mmdcn.data.checks import build_dataset, check_together  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402
from mmdcn.writing import write_text  # noqa: E402
from tools.own_data import config_text  # noqa: E402
from tools.own_data.class_folders import survey_class_folders  # noqa: E402
from tools.own_data.coco import survey_coco  # noqa: E402
from tools.own_data.label_maps import survey_label_maps  # noqa: E402
from tools.own_data.overview import write_overview  # noqa: E402
from tools.own_data.survey import Survey, describe  # noqa: E402

KINDS = {'mmdet': "annotations in COCO's format", 'mmseg': 'pictures and label maps',
         'mmpretrain': 'class folders'}


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(
        prog='new_config.py', description='Write a config that trains a model on your own data.')
    add = parser.add_argument
    add('--base', metavar='CONFIG', required=True, help='config of the model to train')
    add('--data', metavar='ROOT', required=True, help='folder of the data set')
    add('--out', metavar='FILE', required=True, help='config to write (.py)')
    add('--batch', type=int, metavar='N', help="pictures for each GPU (default: the base's)")
    add('--gpus', type=int, default=1, metavar='N', help='GPUs, or CPU processes (default: 1)')
    add('--iters', type=int, metavar='N',
        help=f'length of the training (default: {config_text.PASSES} times over the pictures, '
             f'{config_text.LEAST} to {config_text.MOST})')
    add('--weights', metavar='FILE',
        help="checkpoint to start from (default: what the base starts from)")
    return parser


def look(base: Config, root: Path, out: Path) -> Survey:
    """Survey the folder for the task of the base config."""
    if base.default_scope == 'mmdet':
        return survey_coco(root, out, predicts_masks(base))
    if base.default_scope == 'mmseg':
        return survey_label_maps(root, out)
    return survey_class_folders(root, out)


def predicts_masks(base: Config) -> bool:
    """Whether a detector needs masks to train."""
    steps = config.innermost_dataset(base.train_dataloader.dataset).get('pipeline', [])
    return any(step.get('with_mask') for step in steps)


def check_arguments(args: argparse.Namespace, base: Config) -> None:
    """Raise UserError for what cannot be before the data are looked at."""
    if base.get('default_scope') not in KINDS:
        raise UserError('base', f'its default_scope is {base.get("default_scope")!r}',
                        f'one of {", ".join(KINDS)}')
    if not Path(args.data).is_dir():
        raise UserError('data', f'{args.data} is no folder', 'the folder of the data set')
    if Path(args.out).suffix != '.py':
        raise UserError('out', f'got {args.out}', 'a name ending in .py')
    for name in ('batch', 'gpus', 'iters'):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(name, f'got {value}', 'at least 1')
    if args.weights:
        config.check_file(args.weights, 'weights')


def check_data(path: Path) -> None:
    """Read the data sets of a config as a training would; raises UserError where it would stop."""
    cfg = config.load_config(str(path))
    with task_scope(cfg):
        for name in ('train_dataloader', 'val_dataloader'):
            dataset = build_dataset(cfg[name].dataset.to_dict(), f'{name}.dataset')
            check_together(dataset, f'{name}.dataset', False, print)


def write_all(survey: Survey, out: Path, text: str) -> None:
    """Write the config and the lists of its split, which vanish again if training would refuse."""
    files = {**survey.texts, out: text}
    before = {path: path.read_text(encoding='utf-8') for path in files if path.is_file()}
    for path, content in files.items():
        write_text(path, content)
    try:
        check_data(out)
    except BaseException:
        for path in files:
            if path in before:
                write_text(path, before[path])
            else:
                path.unlink(missing_ok=True)
        raise


def new_config(args: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    base = config.load_config(args.base)
    check_arguments(args, base)
    out, root = Path(args.out), Path(args.data)
    picture = out.with_name(f'{out.stem}_overview.png')
    survey = look(base, root, out)
    read = [args.base, *(file for split in survey.splits.values() for file in split.files)]
    results.check_outputs({'out': out, **{str(path): path for path in (picture, *survey.texts)}},
                          [*read, *([args.weights] if args.weights else [])])
    numbers = config_text.plan(base, survey, args.batch, args.gpus, args.iters)
    weights = os.path.abspath(args.weights) if args.weights else None
    print('\n'.join(describe(survey)), flush=True)
    write_all(survey, out, config_text.write(args.base, base, survey, out, numbers, weights))
    write_overview(survey, picture)
    print(f'{out}: {numbers["iterations"]} iterations of {numbers["total"]} pictures, learning '
          f'rate {numbers["lr"]:.3g}; look at {picture}, then: python tools/train.py {out}')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(new_config, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
