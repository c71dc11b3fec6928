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
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ops_dcn  # noqa: E402
from ops_dcn import _library  # noqa: E402
from tools.bench import cuda_bench  # noqa: E402

OPS = ('dcnv3', 'dcnv4', 'ms_deform_attn', 'flash_deform_attn')
KERNEL, POINTS = 3, 9
GROUPS, GROUP_CHANNELS = 4, 16
IMAGES = ((1, 56, 56), (8, 56, 56), (1, 200, 320))
HEADS, HEAD_CHANNELS, LEVEL_POINTS = 8, 32, 4
LEVELS = ((100, 167), (50, 84), (25, 42), (13, 21))  # an 800 x 1333 image: 22,223 queries
REPETITION_S = 10e-3  # shorter calls are timed several times within one repetition
COPY_BYTES = 256 << 20


@dataclass
class Case:
    """One operator at one shape: the same inputs for both forms."""

    op: str
    shape: str
    inputs: list[Tensor]  # all of them differentiable
    compiled: Callable[..., Tensor]
    grid_sample: Callable[..., Tensor]


# ------------------------------------------------------------------------- the PyTorch forms
def grid_convolution(value: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
    """DCNv3 through one batched grid_sample; stride 1, 3x3, padding 1.

    value (N, H, W, G*D), offset (N, H, W, G*K*2) in pixels, mask (N, H, W, G*K).
    """
    n, h, w, _ = value.shape
    taps = torch.arange(POINTS)
    x = torch.arange(w)[:, None, None] + (taps // KERNEL - 1)
    y = torch.arange(h)[:, None, None, None] + (taps % KERNEL - 1)
    offset = offset.view(n, h, w, GROUPS, POINTS, 2)
    grid = torch.stack(
        (
            (2 * (x + offset[..., 0]) + 1) / w - 1,
            (2 * (y + offset[..., 1]) + 1) / h - 1,
        ),
        -1,
    )
    grid = grid.permute(0, 3, 1, 2, 4, 5).reshape(n * GROUPS, h, w * POINTS, 2)
    image = value.view(n, h, w, GROUPS, -1).permute(0, 3, 4, 1, 2).flatten(0, 1)
    samples = F.grid_sample(image, grid, padding_mode='zeros', align_corners=False)
    mask = mask.view(n, h, w, GROUPS, POINTS).permute(0, 3, 1, 2, 4)
    samples = samples.view(n, GROUPS, -1, h, w, POINTS) * mask[:, :, None]
    return samples.sum(-1).permute(0, 3, 4, 1, 2).reshape(n, h, w, -1)


def grid_packed_convolution(value: Tensor, offset_mask: Tensor) -> Tensor:
    """DCNv4: unpack, then as :func:`grid_convolution`."""
    n, h, w, _ = value.shape
    packed = offset_mask[..., : 3 * GROUPS * POINTS].view(n, h, w, GROUPS, 3 * POINTS)
    offset, mask = packed.split((2 * POINTS, POINTS), -1)
    return grid_convolution(value, offset.flatten(3), mask.flatten(3))


def grid_attention(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Multi-scale deformable attention: one batched grid_sample per level."""
    n, queries, heads, levels, points, _ = locations.shape
    grids = 2 * locations - 1
    samples = []
    for level, part in enumerate(value.split([h * w for h, w in LEVELS], 1)):
        image = part.permute(0, 2, 3, 1).reshape(n * heads, -1, *LEVELS[level])
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        samples.append(F.grid_sample(image, grid, padding_mode='zeros', align_corners=False))
    weights = weights.transpose(1, 2).reshape(n * heads, 1, queries, levels * points)
    output = (torch.cat(samples, -1) * weights).sum(-1)
    return output.view(n, -1, queries).transpose(1, 2).contiguous()


def grid_packed_attention(value: Tensor, packed: Tensor) -> Tensor:
    """flash_deform_attn: unpack, softmax, then as :func:`grid_attention`."""
    n, queries, heads, _ = packed.shape
    points = len(LEVELS) * LEVEL_POINTS
    locations, logits = packed.split((2 * points, points), -1)
    shape = (n, queries, heads, len(LEVELS), LEVEL_POINTS)
    return grid_attention(value, locations.reshape(*shape, 2), logits.softmax(-1).view(shape))


# ----------------------------------------------------------------------------------- the cases
def convolution_cases(device: torch.device) -> list[Case]:
    """DCNv3 and DCNv4 at every image shape; offsets scatter by one pixel."""
    cases = []
    for n, h, w in IMAGES:
        shape = f'{n}x{h}x{w}, {GROUPS}x{GROUP_CHANNELS}'

        def random(last: int, size: tuple[int, int, int] = (n, h, w)) -> Tensor:
            return torch.randn(*size, last, device=device, requires_grad=True)

        channels, points = GROUPS * GROUP_CHANNELS, GROUPS * POINTS
        cases += [
            Case(
                'dcnv3',
                shape,
                [random(channels), random(2 * points), random(points)],
                lambda *inputs: ops_dcn.dcnv3(*inputs, groups=GROUPS),
                grid_convolution,
            ),
            Case(
                'dcnv4',
                shape,
                [random(channels), random(-(-3 * points // 8) * 8)],
                lambda *inputs: ops_dcn.dcnv4(*inputs, groups=GROUPS),
                grid_packed_convolution,
            ),
        ]
    return cases


def attention_cases(device: torch.device) -> list[Case]:
    """Both attention operators as in an encoder: every pixel asks around itself, in all levels."""
    shapes = torch.tensor(LEVELS)
    sizes = shapes.prod(1)
    starts = sizes.cumsum(0) - sizes
    queries = int(sizes.sum())
    centres = []
    for h, w in LEVELS:
        y, x = torch.meshgrid(
            (torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing='ij'
        )
        centres.append(torch.stack((x, y), -1).view(-1, 2))
    locations = torch.cat(centres).view(1, queries, 1, 1, 1, 2) + 2 * torch.randn(
        1, queries, HEADS, len(LEVELS), LEVEL_POINTS, 2
    ) / shapes.flip(1).view(1, 1, 1, -1, 1, 2)
    logits = torch.randn(1, queries, HEADS, len(LEVELS) * LEVEL_POINTS)
    weights = logits.softmax(-1).view(1, queries, HEADS, len(LEVELS), LEVEL_POINTS)
    packed = torch.cat((locations.flatten(3), logits), -1)
    value = torch.randn(1, queries, HEADS, HEAD_CHANNELS)

    def leaves(*tensors: Tensor) -> list[Tensor]:
        return [t.contiguous().to(device).requires_grad_() for t in tensors]

    shape = f'{queries} queries, {HEADS}x{HEAD_CHANNELS}, {len(LEVELS)} levels'
    return [
        Case(
            'ms_deform_attn',
            shape,
            leaves(value, locations, weights),
            lambda v, loc, attn: ops_dcn.ms_deform_attn(v, shapes, starts, loc, attn),
            grid_attention,
        ),
        Case(
            'flash_deform_attn',
            shape,
            leaves(value, packed),
            lambda v, loc_attn: ops_dcn.flash_deform_attn(
                v, shapes, starts, loc_attn, num_points=LEVEL_POINTS
            ),
            grid_packed_attention,
        ),
    ]


# ---------------------------------------------------------------------------------- measuring
def timed(call: Callable[[], Any], repeats: int) -> float:
    """Median seconds of `repeats` calls, each timed alone."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def set_threads(threads: int) -> None:
    """Set the number of threads, and wake them, so that starting them is not measured."""
    torch.set_num_threads(threads)
    torch.ones(1 << 20).add_(1)


def candidates(case: Case) -> dict[str, Callable[[], Any]]:
    """The four calls of a case: forward without a graph, backward alone; compiled and not."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, form in (('compiled', case.compiled), ('grid_sample', case.grid_sample)):
        output = form(*case.inputs)
        grad = torch.ones_like(output)

        def forward(form: Callable[..., Tensor] = form) -> None:
            with torch.no_grad():
                form(*case.inputs)

        def backward(output: Tensor = output, grad: Tensor = grad) -> None:
            torch.autograd.grad(output, case.inputs, grad, retain_graph=True)

        calls[f'{name} forward'] = forward
        calls[f'{name} backward'] = backward
    check_agreement(case)
    return calls


def check_agreement(case: Case) -> None:
    """Exit if the two forms do not compute the same."""
    with torch.no_grad():
        difference = (case.compiled(*case.inputs) - case.grid_sample(*case.inputs)).abs().max()
    if not difference < 1e-2:  # grid_sample's normalised coordinates cost digits
        sys.exit(f'error: {case.op} differs from its grid_sample form by {difference:.3g}')


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
    output = case.inputs[0].element_size() * case.compiled(*case.inputs).numel()
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
        for form in ('compiled', 'grid_sample'):
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
            grid = statistics.median(times['grid_sample'][count])
            records.append(
                {
                    'op': case.op,
                    'shape': case.shape,
                    'direction': direction,
                    'threads': count,
                    'compiled_ms': 1e3 * compiled,
                    'grid_sample_ms': 1e3 * grid,
                    'ratio': grid / compiled,
                    'compiled_min_ms': 1e3 * min(times['compiled'][count]),
                    'grid_sample_min_ms': 1e3 * min(times['grid_sample'][count]),
                    'scaling': single / compiled,
                    'copy_fraction': size * copy[count] / compiled,
                }
            )
    return records


# ------------------------------------------------------------------------------------- output
def report(text: str) -> None:
    """Write progress."""
    sys.stderr.write(text)
    sys.stderr.flush()


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
                f'{r["grid_sample_ms"]:.2f} ms',
                f'{r["ratio"]:.1f}x',
                f'{r["scaling"]:.2f}x',
                f'{100 * r["copy_fraction"]:.0f} %',
            )
        )


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    usual = sorted({1, min(2, torch.get_num_threads())})
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
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
    args = parser.parse_args()
    if min(args.threads) < 1:
        parser.error(f'--threads is not valid: got {args.threads}, expected numbers >= 1')
    for name in ('json', 'plot'):
        path = getattr(args, name)
        if path is not None and not path.parent.is_dir():
            parser.error(f'--{name} is not valid: got {path}, expected a folder that exists')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda is not valid here: torch finds no CUDA device')
    return args


def main() -> None:
    """Measure every case and print the table."""
    args = parse_args()
    if args.device == 'cuda':
        cuda_bench.run(args)
        return
    device = torch.device(args.device)
    backend = _library.backends()[args.device]
    repetitions = 3 if args.quick else 9
    threads = sorted(set(args.threads))
    torch.manual_seed(0)
    cases = convolution_cases(device) + attention_cases(device)
    cases = [case for case in cases if case.op in args.ops]
    copy = copy_seconds(device, threads, repetitions)
    records = []
    for case in cases:
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
        args.json.write_text(json.dumps(summary, indent=2) + '\n')


if __name__ == '__main__':
    main()
