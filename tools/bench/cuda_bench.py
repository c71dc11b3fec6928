"""``bench_ops.py --device cuda``: measures the problems and writes table, JSON and plot."""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmdcn.errors import UserError
from mmdcn.writing import whole_file, write_text
from ops_dcn import _library
from tools.bench import cuda_cases, limits
from tools.bench.cuda_cases import Problem
from tools.bench.cuda_timer import CudaTimer, peak_bytes

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {'float16': torch.float16, 'bfloat16': torch.bfloat16, 'float32': torch.float32}
REPETITIONS = 50


def problems(arguments: argparse.Namespace) -> Iterable[Problem]:
    """Everything that was asked for, made one by one: together they would fill the memory."""
    quick = arguments.quick
    shapes = cuda_cases.STAGES + cuda_cases.UNTUNED
    pyramids = tuple(cuda_cases.PYRAMIDS)
    layers = cuda_cases.MODULES
    for name in arguments.dtypes:
        dtype = DTYPES[name]
        for spread in arguments.spread:
            for problem in cuda_cases.convolutions(shapes[:1] if quick else shapes, dtype, spread,
                                                   'cuda'):
                problem.shape += f', offsets {spread:g} px'
                yield problem
        yield from cuda_cases.attentions(pyramids[:1] if quick else pyramids, dtype, 'cuda')
        yield from cuda_cases.modules(layers[:1] if quick else layers, dtype, 'cuda')


def largest_error(problem: Problem, output: Tensor) -> float | None:
    """Largest difference from float64 on the CPU, relative to the largest value."""
    if problem.exact is None:
        return None
    exact = [tensor.detach().cpu() for tensor in problem.inputs]
    exact = [tensor.double() if tensor.is_floating_point() else tensor for tensor in exact]
    expected = problem.exact(*exact)
    difference = (output.detach().cpu().double() - expected).abs().max()
    return float(difference / expected.abs().max())


def measure(problem: Problem, name: str, timer: CudaTimer,
            device: limits.Device) -> list[dict[str, Any]]:
    """The records of one implementation: forward and backward."""
    call, leaves = problem.calls[name], problem.leaves
    if isinstance(call, torch.nn.Module):
        leaves = [*leaves, *call.parameters()]
    output = call(*problem.inputs)
    grad = torch.ones_like(output)

    def forward() -> Tensor:
        with torch.no_grad():
            return call(*problem.inputs)

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(output, leaves, grad, retain_graph=True)

    records = []
    for direction, run in (('forward', forward), ('backward', backward)):
        record: dict[str, Any] = {
            'op': problem.op, 'shape': problem.shape, 'by': name, 'direction': direction,
            'dtype': str(output.dtype).removeprefix('torch.'),
            'cold_us': 1e6 * timer.seconds(run, cold=True),
            'warm_us': 1e6 * timer.seconds(run, cold=False), 'peak_mb': peak_bytes(run) / 1e6}
        if direction == 'forward':
            record['error'] = largest_error(problem, output)
        if problem.gathered:
            size = limits.compulsory_bytes(problem.inputs, output, direction)
            gathered = problem.gathered if direction == 'forward' else 0
            memory, l1 = limits.seconds(device, size, gathered)
            record |= {'hbm_limit_us': 1e6 * memory, 'of_hbm': 1e6 * memory / record['cold_us']}
            if l1:
                record |= {'l1_limit_us': 1e6 * l1, 'of_l1': 1e6 * l1 / record['cold_us']}
        records.append(record)
    return records


def measure_all(problem: Problem, timer: CudaTimer,
                device: limits.Device) -> list[dict[str, Any]]:
    """The records of a problem; an implementation that cannot do it is named with its error."""
    records = []
    for name in problem.calls:
        sys.stderr.write(f'{problem.op} {problem.shape}: {name}\n')
        try:
            records += measure(problem, name, timer, device)
        except Exception as error:  # any error of a package of others belongs in the report
            if name in ('ops_dcn', 'DCNv4', 'DCNv3'):
                raise
            torch.cuda.empty_cache()
            first = (str(error).splitlines() or [''])[0]
            records.append({'op': problem.op, 'shape': problem.shape, 'by': name,
                            'failed': f'{type(error).__name__}: {first}'})
    ours = {record['direction']: record['cold_us'] for record in records
            if record['by'] in ('ops_dcn', 'DCNv4') and 'cold_us' in record}
    for record in records:
        if 'cold_us' in record:
            record['ratio'] = record['cold_us'] / ours[record['direction']]
    return records


def table(records: list[dict[str, Any]]) -> list[str]:
    """The records as lines of a Markdown table; `ratio`: time over that of ops_dcn."""
    lines = ['| operator | shape | dtype | direction | by | cold, us | warm, us | ratio | of HBM | '
             'of L1 | peak, MB | error |', '|' + '---|' * 12]
    for record in records:
        if 'failed' in record:
            lines.append(f'| {record["op"]} | {record["shape"]} | | | {record["by"]} | '
                         f'{record["failed"]} | | | | | | |')
            continue
        fractions = [f'{100 * record[key]:.0f} %' if key in record else ''
                     for key in ('of_hbm', 'of_l1')]
        error = record.get('error')
        lines.append('| ' + ' | '.join([
            record['op'], record['shape'], record['dtype'], record['direction'], record['by'],
            f'{record["cold_us"]:.1f}', f'{record["warm_us"]:.1f}', f'{record["ratio"]:.2f}',
            *fractions, f'{record["peak_mb"]:.0f}', '' if error is None else f'{error:.1e}'])
            + ' |')
    return lines


def plot(records: list[dict[str, Any]], path: Path, title: str) -> None:
    """Bars: cold microseconds of everybody, per operator and shape, forward and backward."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError('plot', 'matplotlib is not installed', '',
                        'run: pip install matplotlib') from None
    timed = [record for record in records if 'cold_us' in record]
    names = list(dict.fromkeys(record['by'] for record in timed))
    rows = list(dict.fromkeys((record['op'], record['shape'], record['dtype'])
                              for record in timed))
    figure = Figure(figsize=(14, 1 + 0.45 * len(rows)), layout='constrained')
    figure.suptitle(title)
    for axis, direction in zip(figure.subplots(1, 2, sharey=True), ('forward', 'backward'),
                               strict=True):
        height = 0.8 / len(names)
        for i, name in enumerate(names):
            bars = [(row, record['cold_us']) for row, key in enumerate(rows) for record in timed
                    if (record['op'], record['shape'], record['dtype']) == key
                    and record['by'] == name and record['direction'] == direction]
            axis.barh([row + i * height for row, _ in bars], [us for _, us in bars], height,
                      label=name)
        axis.set(title=direction, xlabel='microseconds, cold L2', xscale='log')
        axis.set_yticks([row + 0.4 for row in range(len(rows))],
                        [' '.join(row) for row in rows], fontsize=7)
        axis.invert_yaxis()
    figure.axes[0].legend(fontsize=7)
    with whole_file(path) as part:
        figure.savefig(part)


def commit() -> str:
    """The commit that is measured; empty outside of a checkout."""
    got = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=ROOT, check=False,
                         capture_output=True, text=True)
    return got.stdout.strip()


def run(arguments: argparse.Namespace) -> None:
    """Measure everything and write what was asked for."""
    if problem := _library.cuda_problem():
        raise UserError('device', f'ops_dcn cannot run on CUDA: {problem}')
    torch.manual_seed(0)
    timer = CudaTimer(9 if arguments.quick else REPETITIONS)
    properties = torch.cuda.get_device_properties(0)
    device = limits.device_of(properties.name, timer.copy_speed(),
                              properties.multi_processor_count,
                              1e3 * getattr(properties, 'clock_rate', 0))
    records = []
    for problem in problems(arguments):
        if problem.op in arguments.ops or problem.op == 'module':
            records += measure_all(problem, timer, device)
    head = (f'{properties.name}, torch {torch.__version__}, ops_dcn {_library.backends()["cuda"]}, '
            f'commit {commit()}, {time.strftime("%d %B %Y")}')
    print(head)
    print(f'limits: memory {device.memory / 1e12:.2f} TB/s ({device.source}), L1 '
          f'{device.l1 / 1e12:.1f} TB/s; medians of {timer.repetitions}')
    print('\n'.join(table(records)))
    if arguments.json is not None:
        facts = {'device': properties.name, 'torch': torch.__version__, 'commit': commit(),
                 'memory_bytes_per_s': device.memory, 'l1_bytes_per_s': device.l1,
                 'limits_from': device.source, 'repetitions': timer.repetitions,
                 'records': records}
        write_text(arguments.json, json.dumps(facts, indent=2) + '\n')
    if arguments.plot is not None:
        plot(records, arguments.plot, head)
