"""The picture of docs/claims.md: one panel for each claim."""
from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmdcn import writing
from tools.dev.paper_claims.trials import CLAIMS, ITERATIONS, Claim
from tools.dev.paper_claims.verdicts import Result, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# M. Okabe and K. Ito's colours, which the colour-blind can tell apart; markers differ as well.
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00')
_MARKERS = 'osD^v'
_GREY = '#666666'


def draw(results: Mapping[str, Result], path: Path) -> None:
    """Draw all claims.

    Args:
        results: By variant.
        path: Picture to write.
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    with plt.rc_context({'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False}):
        figure = plt.figure(figsize=(13, 7.6), layout='constrained')
        panels = [axes for row in figure.subfigures(2, 1) for axes in row.subplots(1, 3)]
        for claim, axes in zip(CLAIMS.values(), panels, strict=True):
            axes.set_title(claim.title, loc='left', fontweight='bold')
            axes.grid(alpha=0.25)
            (_steps if claim.steps else _curves)(axes, claim, results)
        with writing.whole_file(path) as part:
            figure.savefig(part, dpi=100)
        plt.close(figure)


def _curves(axes: Axes, claim: Claim, results: Mapping[str, Result]) -> None:
    """Top-1 over the iterations: the mean, and a band from the lowest to the highest seed."""
    for name, colour, marker in zip(claim.variants, _COLOURS, _MARKERS, strict=False):
        result = results[name]
        where = result.iterations
        values = [result.top1(iteration) for iteration in where]
        axes.plot(where, list(map(statistics.fmean, values)), color=colour, marker=marker,
                  markersize=5, label=claim.label(name) + _costs(claim, result))
        axes.fill_between(where, list(map(min, values)), list(map(max, values)), color=colour,
                          alpha=0.15, linewidth=0)
    axes.set(xlabel='training iterations', ylabel='top-1, % of unseen pictures', ylim=(0, 100),
             xlim=(min(where) - 20, max(where) + 20))
    axes.legend(loc='best', frameon=False)


def _costs(claim: Claim, result: Result) -> str:
    """What a variant costs, for the legend of a claim about costs."""
    if not any(comparison.measure == 'memory' for comparison in claim.comparisons):
        return ''
    return f'\n({result.params / 1e6:.1f} M parameters, {result.memory / 2**20:.0f} MiB)'


def _steps(axes: Axes, claim: Claim, results: Mapping[str, Result]) -> None:
    """Top-1 at the end by step, from top to bottom; what the paper has on an axis of its own."""
    places = range(len(claim.variants))
    means, deviations = zip(*(spread(results[name].top1(ITERATIONS)) for name in claim.variants),
                            strict=True)
    axes.errorbar(means, places, xerr=deviations, color=_COLOURS[0], marker='o', capsize=3)
    axes.set_yticks(places, list(map(claim.label, claim.variants)))
    axes.set_xlabel('here: top-1 at the end, mean and deviation, %', color=_COLOURS[0])
    axes.invert_yaxis()
    paper = axes.twiny()
    paper.spines['top'].set_visible(True)
    paper.plot([claim.steps[name] for name in claim.variants], places, color=_GREY, linestyle=':',
               marker='x')
    paper.set_xlabel('in the paper: ImageNet top-1, %', color=_GREY)
    axes.tick_params(axis='x', colors=_COLOURS[0])
    paper.tick_params(axis='x', colors=_GREY)
