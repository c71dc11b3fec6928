#!/usr/bin/env python
"""Draw loss, learning rate and metric of one or several runs over the iterations.

    python tools/analysis/curves.py work_dirs/a work_dirs/b --out curves.png
"""
from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdcn import writing  # noqa: E402
from mmdcn.apis import cli, results  # noqa: E402
from mmdcn.errors import UserError, shorten_text, suggest  # noqa: E402

# What a line of the log holds beside losses and metrics.
OTHERS = {'step', 'iter', 'epoch', 'time', 'data_time', 'memory', 'lr', 'base_lr', 'grad_norm'}
PREFERRED = ('coco/bbox_mAP', 'mIoU', 'accuracy/top1')
Curve = list[tuple[int, float]]


@dataclass
class Run:
    """Curves of a run, by key of the log: (iteration, value), in order.

    Attributes:
        train: What training logged: losses, ``lr`` and the like.
        metrics: What validation logged.
    """

    train: dict[str, Curve] = field(default_factory=dict)
    metrics: dict[str, Curve] = field(default_factory=dict)

    def add(self, other: Run) -> None:
        """Go on with a later log; from its first iteration on it is what counts."""
        first = min(curve[0][0] for curve in other.train.values())
        for mine, more in ((self.train, other.train), (self.metrics, other.metrics)):
            for key in {**mine, **more}:
                mine[key] = [point for point in mine.get(key, []) if point[0] < first]
                mine[key] += more.get(key, [])


def read_run(folder: str) -> Run:
    """Join the logs of a work folder; those without training (of tests) are left out.

    Raises:
        UserError: There is no log, or one is damaged.
    """
    # Their folders are named by date and time.
    paths = sorted(Path(folder).glob('*/vis_data/scalars.json'))
    run = Run()
    for path in paths:
        log = read_log(path)
        if log.train:
            run.add(log)
    if not run.train:
        found = f'{len(paths)} logs without training' if paths else 'no log'
        raise UserError('work_dir', f'{folder} has {found}',
                        'the work folder of a training, with TIME/vis_data/scalars.json')
    return run


def read_log(path: Path) -> Run:
    """Curves of one log; a last line that a kill cut off is left out.

    Raises:
        UserError: Another line is damaged.
    """
    run, step = Run(), 0
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError('work_dir', f'{path} cannot be read ({error})', 'a log') from error
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            at = int(entry['step'])
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise UserError('work_dir', f'line {number} of {path} is {shorten_text(line, 80)!r}',
                            'an object with a step', 'mend or remove this log') from error
        training = 'loss' in entry or 'iter' in entry
        # Validation counts epochs in some logs; it is at the iteration where training stands.
        step = at if training else max(at, step)
        for key, value in entry.items():
            if isinstance(value, int | float) and (training or key not in OTHERS):
                curves = run.train if training else run.metrics
                curves.setdefault(key, []).append((step, value))
    return run


def name_runs(folders: list[str]) -> list[str]:
    """Short names of the runs: their folders', with those above where names are alike."""
    names = [Path(folder).resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else folders


def choose_metrics(runs: dict[str, Run], wanted: list[str]) -> dict[str, list[str]]:
    """Metrics to draw of each run: those wanted, else the usual one of its task.

    Raises:
        UserError: No run has a wanted one.
    """
    known = sorted({key for run in runs.values() for key in run.metrics})
    for key in wanted:
        if key not in known:
            raise UserError('metric', f'got {key}', f'one of {", ".join(known) or "none at all"}',
                            suggest(key, known))
    return {name: [key for key in wanted if key in run.metrics] or (
        [] if wanted else [key for key in (*PREFERRED, *run.metrics) if key in run.metrics][:1])
            for name, run in runs.items()}


def select(run: Run, metrics: Iterable[str], parts: bool) -> dict[str, dict[str, Curve]]:
    """Curves to draw, by panel and key."""
    losses = {key: curve for key, curve in run.train.items()
              if key == 'loss' or (parts and 'loss' in key)}
    rate = {key: run.train[key] for key in ('lr', 'base_lr') if key in run.train}
    return {'loss': losses, 'learning rate': dict(list(rate.items())[:1]),
            'metric': {key: run.metrics[key] for key in metrics}}


def draw(curves: dict[str, dict[str, dict[str, Curve]]], path: str) -> None:
    """Draw panels below one another, a colour per run and a dash pattern per key.

    Args:
        curves: By run, panel and key.
        path: Picture to write.
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    panels = [panel for panel in ('loss', 'learning rate', 'metric')
              if any(panels[panel] for panels in curves.values())]
    figure, rows = plt.subplots(len(panels), sharex=True, squeeze=False, layout='constrained',
                                figsize=(9, 1 + 2.7 * len(panels)))
    for panel, axes in zip(panels, rows[:, 0], strict=True):
        keys = list(dict.fromkeys(key for run in curves.values() for key in run[panel]))
        for number, (name, run) in enumerate(curves.items()):
            for key, curve in run[panel].items():
                label = name if len(keys) == 1 else key if len(curves) == 1 else f'{name}: {key}'
                alike = len(curves) == 1 and len(keys) > 1
                axes.plot(*zip(*curve, strict=True), label=label,
                          color=f'C{(keys.index(key) if alike else number) % 10}',
                          linestyle='-' if alike else ['-', '--', ':', '-.'][keys.index(key) % 4],
                          marker='o' if panel == 'metric' or len(curve) == 1 else '', markersize=4)
        axes.set_ylabel(keys[0] if len(keys) == 1 and panel == 'metric' else panel)
        axes.grid(alpha=0.3)
        if len(curves) > 1 or len(keys) > 1:
            axes.legend(fontsize='small')
    rows[0, 0].set_title(', '.join(curves) if len(curves) == 1 else f'{len(curves)} runs')
    rows[-1, 0].set_xlabel('iteration')
    with writing.whole_file(path) as part:
        figure.savefig(part, dpi=120)
    plt.close(figure)


def to_json(curves: Any) -> Any:
    """The curves with None for what JSON has no number for."""
    if isinstance(curves, dict):
        return {key: to_json(value) for key, value in curves.items()}
    return {'iteration': [step for step, _ in curves],
            'value': [value if math.isfinite(value) else None for _, value in curves]}


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(
        prog='curves.py', description='Draw loss, learning rate and metric of runs.')
    add = parser.add_argument
    add('work_dir', metavar='WORK_DIR', nargs='+', help='work folder of a training')
    add('--out', metavar='FILE', required=True, help='picture to write (.png, .pdf, .svg)')
    add('--json', metavar='FILE', help='write the curves')
    add('--metric', metavar='KEY', nargs='+', default=[],
        help=f'metrics to draw (default: {", ".join(PREFERRED)}, or the first of the log)')
    add('--parts', action='store_true', help='draw the parts of the loss, too')
    return parser


def analyse(args: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    results.check_outputs({'out': args.out, 'json': args.json}, [
        path for folder in args.work_dir for path in Path(folder).glob('*/vis_data/*.json')])
    results.check_picture(args.out, 'out')
    folders = list(dict.fromkeys(args.work_dir))
    runs = dict(zip(name_runs(folders), map(read_run, folders), strict=True))
    metrics = choose_metrics(runs, args.metric)
    curves = {name: select(run, metrics[name], args.parts) for name, run in runs.items()}
    draw(curves, args.out)
    if args.json:
        writing.write_text(args.json, json.dumps(to_json(curves), indent=2) + '\n')
    for name, run in curves.items():
        last = [f'{key}={curve[-1][1]:.4g} (iteration {curve[-1][0]})'
                for key, curve in {**run['loss'], **run['metric']}.items()]
        print(f'{name}: {", ".join(last)}')
    print(f'curves.py: {len(runs)} runs; picture in {args.out}')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(analyse, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
