#!/usr/bin/env python
"""Say what costs a detector its AP50: classes, places, duplicates, background, missed objects.

    python tools/test.py CONFIG CHECKPOINT --out predictions.json
    python tools/analysis/tide.py --ann annotations.json --predictions predictions.json \\
        --json tide.json --plot tide.png
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdcn import writing  # noqa: E402
from mmdcn.analysis import tide  # noqa: E402
from mmdcn.apis import cli, results  # noqa: E402

TITLES = {
    'cls': 'wrong class', 'loc': 'wrong place', 'both': 'class and place', 'dup': 'duplicate',
    'bkg': 'background', 'miss': 'missed', 'fp': 'all false positives',
    'fn': 'all false negatives'}


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(
        prog='tide.py', description="Say what costs a detector its AP50 (TIDE, arXiv:2008.08115).")
    add = parser.add_argument
    add('--ann', metavar='FILE', required=True, help="annotations in COCO's format")
    add('--predictions', metavar='FILE', required=True,
        help="predictions in COCO's result format, as tools/test.py writes them")
    add('--iou-type', choices=list(tide.KEYS), default='bbox',
        help='compare boxes or masks (default: %(default)s)')
    add('--json', metavar='FILE', help='write the figures')
    add('--plot', metavar='FILE', help='write a picture of them (.png, .pdf, .svg)')
    return parser


def format_table(errors: dict[str, float]) -> str:
    """The figures as a table of text."""
    rows = [('AP50', errors['AP50'], 'percent'), *((key, errors[key], title)
                                                   for key, title in TITLES.items())]
    return '\n'.join(f'{key:<5}{value:>8.2f}  {text}' for key, value, text in rows)


def plot(errors: dict[str, float], path: str) -> None:
    """Draw the cost of each kind of error as a bar."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(figsize=(7, 3.6), layout='constrained')
    colours = ['tab:blue'] * 6 + ['tab:grey'] * 2
    bars = axes.barh(list(TITLES.values()), [errors[key] for key in TITLES], color=colours)
    axes.bar_label(bars, fmt='%.1f', padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel('AP50 to be gained, in points')
    axes.set_title(f'AP50 = {errors["AP50"]:.1f} %')
    with writing.whole_file(path) as part:
        figure.savefig(part, dpi=120)
    plt.close(figure)


def analyse(args: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    start = last = time.monotonic()
    results.check_outputs({'json': args.json, 'plot': args.plot}, [args.ann, args.predictions])
    results.check_picture(args.plot, 'plot')
    truth = tide.read_truth(args.ann, args.iou_type)
    predictions = tide.read_predictions(args.predictions, truth, args.iou_type)

    def say(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 5:
            last = time.monotonic()
            print(f'{done}/{total} images', flush=True)

    errors = tide.analyse_errors(truth, predictions, args.iou_type, say)
    if args.json:
        writing.write_text(args.json, json.dumps(errors, indent=2) + '\n')
    if args.plot:
        plot(errors, args.plot)
    print(format_table(errors))
    print(f'tide.py: {len(predictions)} predictions, {len(truth.images)} images in '
          f'{time.monotonic() - start:.1f} s')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(analyse, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
