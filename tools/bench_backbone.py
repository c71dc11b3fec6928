"""Images per second of the backbones, eager and compiled, beside timm's ConvNeXt and Swin.

Forward (no gradients) or a training step (forward and backward of the mean of all features, no
optimiser), each the median of repetitions; seconds to compile are excluded and printed. Inference
merges the projections of DCNv4 where it can. Where timm is not installed, its rows say so.

    python tools/bench_backbone.py --device cuda --dtype float16 --batch 64
    python tools/bench_backbone.py --device cpu --batch 1 --size 64 --quick      # a smoke test
"""
from __future__ import annotations

import argparse
import importlib
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

from mmcls_custom.backbones import FlashInternImage, InternImage  # noqa: E402
from mmdcn.apis import cli  # noqa: E402
from mmdcn.apis.results import check_outputs  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402
from mmdcn.writing import write_text  # noqa: E402
from ops_dcn import DCNv4  # noqa: E402

DTYPES = {name: getattr(torch, name) for name in ('float32', 'float16', 'bfloat16')}
MODELS: dict[str, Callable[[int], nn.Module]] = {
    'flash-internimage-t': lambda size: FlashInternImage(arch='tiny'),
    'flash-internimage-s': lambda size: FlashInternImage(arch='small'),
    'flash-internimage-b': lambda size: FlashInternImage(arch='base'),
    'internimage-t': lambda size: InternImage(arch='tiny'),
    'timm convnext_tiny': lambda size: from_timm('convnext_tiny'),
    'timm convnext_base': lambda size: from_timm('convnext_base'),
    'timm swin_tiny': lambda size: from_timm('swin_tiny_patch4_window7_224', img_size=size),
    'timm swin_base': lambda size: from_timm('swin_base_patch4_window7_224', img_size=size),
}


class Missing(Exception):
    """A package is not installed."""


def from_timm(name: str, **options: Any) -> nn.Module:
    """A backbone of timm that returns the feature maps of all stages."""
    try:
        timm = importlib.import_module('timm')
    except ImportError as error:
        raise Missing('timm is not installed (pip install timm)') from error
    return timm.create_model(name, features_only=True, **options)


def step(model: nn.Module, images: Tensor, train: bool) -> None:
    """One forward pass, with a backward pass where training is measured."""
    if not train:
        with torch.no_grad():
            model(images)
        return
    model.zero_grad(set_to_none=True)
    sum(feature.float().mean() for feature in model(images)).backward()


def seconds(run: Callable[[], None], device: str, repetitions: int) -> float:
    """Median seconds of one call."""
    wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
    times = []
    for _ in range(repetitions):
        wait()
        begin = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One record: images per second of a model, eager and compiled."""
    record: dict[str, Any] = {'model': name}
    try:
        model = MODELS[name](arguments.size)
    except Missing as error:
        return record | {'missing': str(error)}
    memory_format = torch.channels_last
    model = model.to(arguments.device, DTYPES[arguments.dtype], memory_format=memory_format)
    model.train(arguments.train)
    if not arguments.train:
        for layer in model.modules():
            if isinstance(layer, DCNv4):
                layer.merge_projections()
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    images = images.to(arguments.device, DTYPES[arguments.dtype], memory_format=memory_format)
    repetitions = 3 if arguments.quick else 20
    forms = {'eager': model}
    if not arguments.no_compile:
        forms['compiled'] = torch.compile(model)
    for form, callable_model in forms.items():
        begin = time.perf_counter()
        for _ in range(1 if arguments.quick else 3):
            step(callable_model, images, arguments.train)
        record[f'{form}_warmup_s'] = time.perf_counter() - begin
        taken = seconds(lambda m=callable_model: step(m, images, arguments.train),
                        arguments.device, repetitions)
        record[f'{form}_images_per_s'] = arguments.batch / taken
    record['parameters_m'] = sum(p.numel() for p in model.parameters()) / 1e6
    return record


def print_record(record: dict[str, Any]) -> None:
    """Print one line."""
    if 'missing' in record:
        print(f'{record["model"]:22} {record["missing"]}')
        return
    columns = [f'{record["parameters_m"]:6.1f} M']
    for form in ('eager', 'compiled'):
        if f'{form}_images_per_s' in record:
            columns.append(f'{form} {record[f"{form}_images_per_s"]:9.2f} images/s '
                           f'(warm-up {record[f"{form}_warmup_s"]:.0f} s)')
    print(f'{record["model"]:22} ' + '  '.join(columns), flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(prog='bench_backbone.py',
                                     description=__doc__.partition('\n')[0])
    parser.add_argument('--device', default='cuda', choices=['cuda', 'cpu'])
    parser.add_argument('--dtype', default=None, choices=list(DTYPES),
                        help='default: float16 on cuda, float32 on cpu')
    parser.add_argument('--models', nargs='+', default=list(MODELS), choices=list(MODELS))
    parser.add_argument('--batch', type=int, default=64, help='images per call (default: 64)')
    parser.add_argument('--size', type=int, default=224, help='side of an image (default: 224)')
    parser.add_argument('--train', action='store_true', help='forward and backward')
    parser.add_argument('--no-compile', action='store_true', help='eager only')
    parser.add_argument('--quick', action='store_true', help='3 repetitions instead of 20')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all numbers here, too')
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Raise UserError for options that cannot be met, before anything is measured."""
    for name in ('batch', 'size'):
        if getattr(arguments, name) < 1:
            raise UserError(name, f'got {getattr(arguments, name)}', 'a number >= 1')
    check_outputs({'json': arguments.json})
    if arguments.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('device', 'got cuda, but torch finds no CUDA device', '',
                        'cpu is good for a smoke test')


def bench(arguments: argparse.Namespace) -> int:
    """Measure every model and print one line each; returns the exit code."""
    check(arguments)
    arguments.dtype = arguments.dtype or ('float16' if arguments.device == 'cuda' else 'float32')
    torch.manual_seed(0)
    where = torch.cuda.get_device_name() if arguments.device == 'cuda' else platform.machine()
    print(f'{where}, torch {torch.__version__}, {arguments.dtype}, batch {arguments.batch}, '
          f'{arguments.size}x{arguments.size}, {"training" if arguments.train else "inference"}')
    records = []
    for name in arguments.models:
        records.append(measure(name, arguments))
        print_record(records[-1])
    if arguments.json is not None:
        facts = {'device': where, 'torch': torch.__version__, 'dtype': arguments.dtype,
                 'batch': arguments.batch, 'size': arguments.size, 'train': arguments.train,
                 'records': records}
        write_text(arguments.json, json.dumps(facts, indent=2) + '\n')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(bench, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
