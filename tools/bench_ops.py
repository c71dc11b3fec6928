"""Times the compiled operators against a PyTorch form made of grid_sample, in one run.

Per operator and shape: milliseconds of the compiled kernel and of the PyTorch form (forward and
backward), their ratio, how the compiled kernel scales with threads, and which fraction of the
machine's copy bandwidth it reaches on the bytes it cannot avoid (every input and output once).

Each number is the median of repetitions; a repetition times every candidate once, so that a noisy
moment of the machine hits all of them alike. Progress goes to stderr, the table to stdout.

On CUDA (``tools/bench``): microseconds with a cold and a warm L2 cache, the fraction of what memory
and L1 allow, and the published operators, deformops, torchvision, mmcv, attention, window attention
and depthwise convolution beside it, as far as they are installed.

    python tools/bench_ops.py --device cpu --json bench.json
    python tools/bench_ops.py --device cuda --json bench.json --plot bench.png
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ops_dcn  # noqa: E402
from mmdcn.apis import cli  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402
from mmdcn.writing import write_text  # noqa: E402
from ops_dcn import _library, reference  # noqa: E402
from ops_dcn.operators import Call, Convolution, Pyramid  # noqa: E402
from tools.bench import cuda_bench, grid_sample  # noqa: E402
from tools.bench.cpu_timer import (  # noqa: E402
    LEVELS,
    check_options,
    report,
    set_threads,
    timed,
)

OPS = tuple(ops_dcn.OPERATORS)
SIZES = (
    Convolution(1, 56, 56, groups=4, depth=16),
    Convolution(8, 56, 56, groups=4, depth=16),
    Convolution(1, 200, 320, groups=4, depth=16),
    Pyramid(1, LEVELS, groups=8, depth=32, points=4),
)
REPETITION_S = 10e-3  # shorter calls are timed several times within one repetition
COPY_BYTES = 256 << 20


@dataclass
class Case:
    """One operator at one shape: the same inputs for both forms."""

    op: str
    shape: str
    call: Call
    forms: dict[str, Callable[..., Tensor]]  # 'compiled', and 'grid_sample' where there is one

    @property
    def inputs(self) -> list[Tensor]:
        """What gets a gradient."""
        return [tensor for tensor in self.call.tensors.values() if tensor.is_floating_point()]

    def run(self, form: Callable[..., Tensor]) -> Tensor:
        """Call a form of the operator."""
        return form(**self.call.tensors, **self.call.options)


# ----------------------------------------------------------------------------------- the cases
def label(size: Convolution | Pyramid) -> str:
    """The size as the table shows it."""
    if isinstance(size, Convolution):
        return f'{size.n}x{size.height}x{size.width}, {size.groups}x{size.depth}'
    queries = sum(height * width for height, width in size.shapes)
    return f'{queries} queries, {size.groups}x{size.depth}, {len(size.shapes)} levels'


def cases(ops: Iterable[str], device: torch.device) -> Iterator[Case]:
    """The operators at every size of their kind, size by size."""
    for size in SIZES:
        for op, operator in ops_dcn.OPERATORS.items():
            if op not in ops or not isinstance(size, operator.kind):
                continue
            call = operator.case(size, torch.float32)
            tensors = {
                name: tensor.to(device).requires_grad_() if tensor.is_floating_point() else tensor
                for name, tensor in call.tensors.items()
            }
            forms = {'compiled': getattr(ops_dcn, op)}
            if op in grid_sample.FORMS:
                forms['grid_sample'] = grid_sample.FORMS[op]
            yield Case(op, label(size), Call(tensors, call.options), forms)


# ---------------------------------------------------------------------------------- measuring
def candidates(case: Case) -> dict[str, Callable[[], Any]]:
    """The calls of a case, two per form: forward without a graph, backward alone."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, form in case.forms.items():
        output = case.run(form)
        grad = torch.ones_like(output)

        def forward(form: Callable[..., Tensor] = form) -> None:
            with torch.no_grad():
                case.run(form)

        def backward(output: Tensor = output, grad: Tensor = grad) -> None:
            torch.autograd.grad(output, case.inputs, grad, retain_graph=True)

        calls[f'{name} forward'] = forward
        calls[f'{name} backward'] = backward
    check_agreement(case)
    return calls


def check_agreement(case: Case) -> None:
    """Raise UserError if the compiled form differs from the other, or from the reference."""
    other = case.forms.get('grid_sample', getattr(reference, case.op))
    with torch.no_grad():
        difference = (case.run(case.forms['compiled']) - case.run(other)).abs().max()
    if not difference < 1e-2:  # grid_sample's normalised coordinates cost digits
        raise UserError(case.op, f'it differs from its PyTorch form by {difference:.3g}',
                        'less than 0.01', 'run python -m ops_dcn.selftest')


def copy_seconds(device: torch.device, threads: list[int], repetitions: int) -> dict[int, float]:
    """Seconds per byte moved (read or written) by a large copy, per number of threads."""
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    seconds = {}
    for count in threads:
        set_threads(count)
        target.copy_(source)
        runs = [timed(lambda: target.copy_(source), 1) for _ in range(repetitions)]
        seconds[count] = statistics.median(runs) / (2 * COPY_BYTES)
    return seconds


def measure(case: Case, threads: list[int], repetitions: int) -> dict[str, dict[int, list[float]]]:
    """Seconds of every candidate, per number of threads, one entry per repetition."""
    calls = candidates(case)
    repeats = {}
    for name, call in calls.items():
        set_threads(threads[0])
        shortest = min(timed(call, 1) for _ in range(3))
        repeats[name] = max(1, int(REPETITION_S / shortest))
    runs = {name: {count: [] for count in threads} for name in calls}
    for repetition in range(repetitions):
        report(f'\r{case.op} {case.shape}: repetition {repetition + 1}/{repetitions} ')
        for count in threads:
            set_threads(count)
            for name, call in calls.items():
                runs[name][count].append(timed(call, repeats[name]))
    report('\n')
    return runs


def compulsory_bytes(case: Case, direction: str) -> int:
    """Bytes that a kernel must move at least: every tensor once."""
    inputs = sum(t.numel() * t.element_size() for t in case.inputs)
    output = case.inputs[0].element_size() * case.run(case.forms['compiled']).numel()
    return inputs + output if direction == 'forward' else 2 * inputs + output


def evaluate(
    case: Case, runs: dict[str, dict[int, list[float]]], copy: dict[int, float]
) -> list[dict[str, Any]]:
    """One record per direction and number of threads; 'both' is forward plus backward."""
    records = []
    for direction in ('forward', 'backward', 'both'):
        parts = ('forward', 'backward') if direction == 'both' else (direction,)
        size = sum(compulsory_bytes(case, part) for part in parts)
        times: dict[str, dict[int, list[float]]] = {}
        for form in case.forms:
            times[form] = {
                count: [
                    sum(run)
                    for run in zip(*(runs[f'{form} {p}'][count] for p in parts), strict=True)
                ]
                for count in copy
            }
        single = statistics.median(times['compiled'][min(copy)])
        for count in copy:
            compiled = statistics.median(times['compiled'][count])
            record = {
                'op': case.op,
                'shape': case.shape,
                'direction': direction,
                'threads': count,
                'compiled_ms': 1e3 * compiled,
                'compiled_min_ms': 1e3 * min(times['compiled'][count]),
                'scaling': single / compiled,
                'copy_fraction': size * copy[count] / compiled,
            }
            if 'grid_sample' in times:
                grid = statistics.median(times['grid_sample'][count])
                record |= {
                    'grid_sample_ms': 1e3 * grid,
                    'grid_sample_min_ms': 1e3 * min(times['grid_sample'][count]),
                    'ratio': grid / compiled,
                }
            records.append(record)
    return records


# ------------------------------------------------------------------------------------- output
def print_table(records: list[dict[str, Any]]) -> None:
    """Print the records, one line each."""
    head = ('op', 'shape', 'direction', 'threads', 'compiled', 'grid_sample', 'ratio', 'scaling')
    form = '{:<17} {:<30} {:<9} {:>7} {:>12} {:>12} {:>7} {:>7} {:>8}'
    print(form.format(*head, 'of copy'))
    for r in records:
        print(
            form.format(
                r['op'],
                r['shape'],
                r['direction'],
                r['threads'],
                f'{r["compiled_ms"]:.3f} ms',
                f'{r["grid_sample_ms"]:.2f} ms' if 'ratio' in r else '',
                f'{r["ratio"]:.1f}x' if 'ratio' in r else '',
                f'{r["scaling"]:.2f}x',
                f'{100 * r["copy_fraction"]:.0f} %',
            )
        )


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    usual = sorted({1, min(2, torch.get_num_threads())})
    parser = argparse.ArgumentParser(prog='bench_ops.py', description=__doc__.partition('\n')[0])
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'], help='where to run')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all numbers here, too')
    parser.add_argument(
        '--threads', type=int, nargs='+', default=usual, help=f'thread counts (default: {usual})'
    )
    parser.add_argument('--ops', nargs='+', default=OPS, choices=OPS, help='only these operators')
    parser.add_argument(
        '--quick', action='store_true', help='3 repetitions instead of 9 (CUDA: and fewer shapes)'
    )
    cuda = parser.add_argument_group('CUDA only')
    cuda.add_argument('--plot', type=Path, metavar='FILE', help='draw all times into this image')
    cuda.add_argument('--dtypes', nargs='+', default=['float16'], choices=list(cuda_bench.DTYPES))
    cuda.add_argument(
        '--spread', type=float, nargs='+', default=[1.0], help='standard deviation of offsets, px'
    )
    return parser


def check(args: argparse.Namespace) -> None:
    """Raise UserError for options that cannot be met, before anything is measured."""
    check_options(args)
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('device', 'got cuda, but torch finds no CUDA device', '', 'use cpu')


def bench(args: argparse.Namespace) -> int:
    """Measure every case and print the table; returns the exit code."""
    check(args)
    if args.device == 'cuda':
        cuda_bench.run(args)
        return 0
    device = torch.device(args.device)
    backend = _library.backends()[args.device]
    repetitions = 3 if args.quick else 9
    threads = sorted(set(args.threads))
    torch.manual_seed(0)
    copy = copy_seconds(device, threads, repetitions)
    records = []
    for case in cases(args.ops, device):
        records += evaluate(case, measure(case, threads, repetitions), copy)
    bandwidth = {count: 1e-9 / seconds for count, seconds in copy.items()}
    speeds = ', '.join(f'{speed:.1f} GB/s with {count}' for count, speed in bandwidth.items())
    print(f'torch {torch.__version__}, {args.device} ({backend}), {platform.machine()}')
    print(f'copy (read + write), by threads: {speeds}')
    print(f'medians of {repetitions} interleaved repetitions')
    print_table(records)
    if args.json is not None:
        summary = {
            'torch': torch.__version__,
            'device': args.device,
            'backend': backend,
            'repetitions': repetitions,
            'copy_gb_per_s': bandwidth,
            'records': records,
        }
        write_text(args.json, json.dumps(summary, indent=2) + '\n')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(bench, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
