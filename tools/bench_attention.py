"""Times the deformable attention layer of mmdcn against mmcv's, in one run.

Two shapes of DINO with an 800 x 1333 image: its encoder, where all 22,223 pixels of four levels
are queries, and its decoder, where 900 boxes are. Both layers hold the same weights and take the
same inputs, projections and identity included; the run ends if their outputs differ.

Each number is the median of repetitions; a repetition times every candidate once, so that a noisy
moment of the machine hits all of them alike. On the CPU, mmcv runs its PyTorch form, made of
grid_sample. Progress goes to stderr, the table to stdout.

    python tools/bench_attention.py --json attention.json
    python tools/bench_attention.py --threads 1 --quick
"""
from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdcn.apis import cli  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402
from mmdcn.layers import MultiScaleDeformableAttention  # noqa: E402
from mmdcn.writing import write_text  # noqa: E402
from tools.bench import rivals  # noqa: E402
from tools.bench.cpu_timer import (  # noqa: E402
    LEVELS,
    check_options,
    report,
    set_threads,
)

CHANNELS = 256
QUERIES = {'encoder': None, 'decoder': 900}  # None: every pixel of every level
DIRECTIONS = ('forward', 'both')
TOLERANCE = 1e-2  # grid_sample's normalised coordinates cost digits


def layers(rival: type[nn.Module]) -> dict[str, nn.Module]:
    """Both layers with the same random weights, in training mode but without dropout."""
    ours = MultiScaleDeformableAttention(CHANNELS, num_levels=len(LEVELS), dropout=0.0,
                                         batch_first=True)
    with torch.no_grad():  # offsets of about two pixels beside the initial pattern
        ours.sampling_offsets.weight.normal_(std=2 / CHANNELS ** 0.5)
        ours.attention_weights.weight.normal_(std=1 / CHANNELS ** 0.5)
    theirs = rival(CHANNELS, num_levels=len(LEVELS), dropout=0.0, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    return {'mmdcn': ours, 'mmcv': theirs}


def inputs(name: str) -> dict[str, Tensor]:
    """Arguments of a layer at a shape; ``value`` and ``query`` are leaves with a gradient."""
    shapes = torch.tensor(LEVELS)
    sizes = shapes.prod(1)
    memory = torch.randn(1, int(sizes.sum()), CHANNELS, requires_grad=True)
    levels = {'spatial_shapes': shapes, 'level_start_index': sizes.cumsum(0) - sizes,
              'key_padding_mask': torch.zeros(memory.shape[:2], dtype=torch.bool)}
    queries = QUERIES[name]
    if queries is None:
        centers = [torch.stack(torch.meshgrid((torch.arange(w) + 0.5) / w,
                                              (torch.arange(h) + 0.5) / h, indexing='xy'), -1)
                   for h, w in LEVELS]
        points = torch.cat([center.view(-1, 2) for center in centers])[None, :, None]
        query = memory
    else:
        points = torch.rand(1, queries, 1, 4)
        query = torch.randn(1, queries, CHANNELS, requires_grad=True)
    return {'query': query, 'value': memory, 'query_pos': torch.randn_like(query),
            'reference_points': points.repeat(1, 1, len(LEVELS), 1), **levels}


def candidates(models: dict[str, nn.Module],
               arguments: dict[str, Tensor]) -> dict[tuple[str, str], Callable[[], Any]]:
    """A call for each layer and direction: forward without a graph; forward and backward."""
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    for name, model in models.items():
        leaves = [arguments['query'], arguments['value'], *model.parameters()]

        def forward(model: nn.Module = model) -> Tensor:
            with torch.no_grad():
                return model(**arguments)

        def both(model: nn.Module = model, leaves: list[Tensor] = leaves) -> None:
            torch.autograd.grad(model(**arguments).sum(), leaves)

        calls[name, 'forward'] = forward
        calls[name, 'both'] = both
    difference = (calls['mmdcn', 'forward']() - calls['mmcv', 'forward']()).abs().max()
    if not difference < TOLERANCE:
        raise UserError('layers', f'they differ by {difference:.3g}', f'less than {TOLERANCE}')
    return calls


def measure(name: str, models: dict[str, nn.Module], threads: list[int],
            repetitions: int) -> list[dict[str, Any]]:
    """One record per number of threads and direction at a shape."""
    arguments = inputs(name)
    calls = candidates(models, arguments)
    runs: dict[tuple[str, str, int], list[float]] = {
        (*key, count): [] for key in calls for count in threads}
    for repetition in range(-1, repetitions):  # the first one warms up
        report(f'\r{name}: repetition {repetition + 1}/{repetitions} ')
        for count in threads:
            set_threads(count)
            for (layer, direction), call in calls.items():
                begin = time.perf_counter()
                call()
                if repetition >= 0:
                    runs[layer, direction, count].append(time.perf_counter() - begin)
    report('\n')
    medians = {key: 1e3 * statistics.median(run) for key, run in runs.items()}
    return [{'shape': name, 'queries': arguments['query'].shape[1], 'direction': direction,
             'threads': count, 'mmdcn_ms': medians['mmdcn', direction, count],
             'mmcv_ms': medians['mmcv', direction, count],
             'ratio': medians['mmcv', direction, count] / medians['mmdcn', direction, count]}
            for direction in DIRECTIONS for count in threads]


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    usual = sorted({1, min(2, torch.get_num_threads())})
    parser = argparse.ArgumentParser(prog='bench_attention.py',
                                     description=__doc__.partition('\n')[0])
    parser.add_argument('--shapes', nargs='+', default=list(QUERIES), choices=list(QUERIES),
                        help='only these shapes')
    parser.add_argument('--threads', type=int, nargs='+', default=usual,
                        help=f'thread counts (default: {usual})')
    parser.add_argument('--quick', action='store_true', help='3 repetitions instead of 9')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all numbers here, too')
    return parser


def bench(arguments: argparse.Namespace) -> int:
    """Measure every shape and print one line per record; returns the exit code."""
    check_options(arguments)
    rival = rivals.find('mmcv.ops.multi_scale_deform_attn', 'MultiScaleDeformableAttention')
    if rival is None:
        raise UserError('mmcv.ops', 'it cannot be imported', 'what this compares with',
                        'install mmcv with its operators (make env)')
    torch.manual_seed(0)
    models = layers(rival)
    print(f'{platform.machine()}, torch {torch.__version__}, float32')
    print(f'{"shape":<8} {"queries":>7} {"direction":<9} {"threads":>7} {"mmdcn":>12} {"mmcv":>12} '
          f'{"ratio":>7}')
    records = []
    for name in arguments.shapes:
        found = measure(name, models, arguments.threads, 3 if arguments.quick else 9)
        for r in found:
            print(f'{r["shape"]:<8} {r["queries"]:>7} {r["direction"]:<9} {r["threads"]:>7} '
                  f'{r["mmdcn_ms"]:>9.1f} ms {r["mmcv_ms"]:>9.1f} ms {r["ratio"]:>6.1f}x',
                  flush=True)
        records += found
    if arguments.json is not None:
        facts = {'machine': platform.machine(), 'torch': torch.__version__, 'records': records}
        write_text(arguments.json, json.dumps(facts, indent=2) + '\n')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(bench, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
