#!/usr/bin/env python
"""How fast a model of any task trains or predicts, what memory it needs, and where its time goes.

    python tools/benchmark.py CONFIG --mode train --batch 2
    python tools/benchmark.py CONFIG OTHER_CONFIG --dtype bfloat16 --json speed.json
    python tools/benchmark.py CONFIG --compile --device cuda --batch 64
    python tools/benchmark.py CONFIG mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py

Timed is the whole step on a batch of random images in main memory: the data preprocessor (with the
mixing of batches), the model, and in training losses, backward pass and the config's optimizer. Not
timed are loading, hooks and whatever a run does between its steps. No data set and no weights are
needed: the network is initialised as for training, without pre-trained weights, and its learning
rates are 0, so that all steps do the same work. How many boxes a detector keeps depends on its
weights, so its prediction costs more or less once it is trained.

With two configs, or with --compile, everything is timed in turn within one run and the ratios are
those of neighbours: on a shared machine believe these, not images per second. --compile compiles
backbone and neck, whose shapes stay the same; --compile-step compiles the whole step, as compile =
True in a config does. Both models of a comparison lie in memory, but peak memory is each one's own.

--dtype float16 or bfloat16 is mixed precision as training and testing with amp make it:
torch.autocast on a GPU (float16 with loss scaling), backbone and neck in bfloat16 on a CPU.
"""
from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

for _name, _level in (('KINETO_LOG_LEVEL', '99'), ('TORCH_CPP_LOG_LEVEL', 'ERROR')):
    os.environ.setdefault(_name, _level)  # the profiler tells the screen when it begins and ends

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from mmengine.config import Config, ConfigDict, DictAction  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402
from torch import nn  # noqa: E402

from mmdcn.analysis import speed  # noqa: E402
from mmdcn.apis import cli  # noqa: E402
from mmdcn.apis.config import load_config, named_files, require  # noqa: E402
from mmdcn.apis.inference import task_scope  # noqa: E402
from mmdcn.apis.results import check_outputs  # noqa: E402
from mmdcn.engine.amp import bfloat16_features  # noqa: E402
from mmdcn.errors import UserError, shorten_text  # noqa: E402
from mmdcn.layers import replace_deformable_attention  # noqa: E402
from mmdcn.writing import write_text  # noqa: E402
from ops_dcn import DCNv4  # noqa: E402
from tools.bench import synthetic  # noqa: E402

DTYPES = ('float32', 'float16', 'bfloat16')
SLOWEST = 5
MIB = 2 ** 20


@dataclass
class Subject:
    """A model that is measured.

    Args:
        name: ``A`` or ``B``.
        config: The config as the command line names it.
        model: Its model.
        size: Height and width of its images.
        input_size: Those of what the network gets, where the data preprocessor pads.
        steps: Its steps by form, ``eager`` and perhaps ``compiled``.
        holders: What owns tensors between the steps.
    """

    name: str
    config: str
    model: nn.Module
    size: tuple[int, int]
    input_size: tuple[int, int]
    steps: dict[str, speed.Step] = field(default_factory=dict)
    holders: list[Any] = field(default_factory=list)


def read_config(name: str, options: list[str]) -> Config:
    """A config file, or one of an installed package such as ``mmpretrain::resnet/....py``.

    Raises:
        UserError: There is none of this name, or an option names no key of it.
    """
    if '::' not in name:
        return load_config(name, options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'inherited.py'
        write_text(path, f'_base_ = {name!r}\n')
        try:
            load_config(str(path))
        except UserError as error:
            raise UserError('config', f'got {name}', "an installed package's config, such as "
                            'mmpretrain::resnet/resnet50_8xb32_in1k.py, or a file') from error
        cfg = load_config(str(path), options)
    object.__setattr__(cfg, '_filename', name)  # what messages call it
    return cfg


def drop_weights(node: Any) -> None:
    """Take pre-trained weights out of the config of a model, in place."""
    if isinstance(node, dict):
        if isinstance(node.get('pretrained'), str):
            node['pretrained'] = None
        ways = node.get('init_cfg')
        if isinstance(ways, dict) and _is_pretrained(ways):
            node['init_cfg'] = None
        elif isinstance(ways, list | tuple):
            node['init_cfg'] = [way for way in ways if not _is_pretrained(way)] or None
    if isinstance(node, dict | list | tuple):
        for child in node.values() if isinstance(node, dict) else node:
            drop_weights(child)


def _is_pretrained(way: dict[str, Any]) -> bool:
    return 'Pretrained' in str(way.get('type'))


def build_model(cfg: Config, train: bool, size: tuple[int, int]) -> nn.Module:
    """The model of a config as a run makes it, but for pre-trained weights.

    Where training crops (segmentation), the crop becomes ``size``.
    """
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    preprocessor = cfg.model.get('data_preprocessor') or {}
    if preprocessor.get('size') is not None:
        preprocessor['size'] = size
    drop_weights(cfg.model)
    model = MODELS.build(cfg.model)
    replace_deformable_attention(model)
    model.init_weights()
    return model.train(train)


def set_precision(wrapper: ConfigDict, dtype: str, device: str) -> None:
    """Give the config of an optimizer wrapper the precision that is asked for, in place.

    Raises:
        UserError: The wrapper is of a kind that decides for itself.
    """
    kind = wrapper.setdefault('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        if dtype != 'float32':
            raise UserError('dtype', f'got {dtype}, but optim_wrapper.type is {kind}',
                            'OptimWrapper or AmpOptimWrapper')
        return
    for key in ('loss_scale', 'dtype', 'use_fsdp'):
        wrapper.pop(key, None)
    wrapper.type = 'OptimWrapper'
    if dtype != 'float32':
        wrapper.type = 'AmpOptimWrapper' if device == 'cuda' else 'CpuAmpOptimWrapper'
    if wrapper.type == 'AmpOptimWrapper':
        wrapper.update(dtype=dtype, loss_scale='dynamic' if dtype == 'float16' else 1.0)


def make_step(subject: Subject, cfg: Config, args: argparse.Namespace,
              ) -> Callable[[dict[str, Any]], Any]:
    """A training step of a model, or its prediction, as a function of a batch."""
    model = subject.model
    if args.mode == 'train':
        wrapper = cfg.optim_wrapper
        set_precision(wrapper, args.dtype, args.device)
        wrapper.accumulative_counts = 1
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        for group in wrapper.optimizer.param_groups:
            group['lr'] = 0.0
        subject.holders.append(wrapper.optimizer)
        return partial(model.train_step, optim_wrapper=wrapper)

    def precision() -> AbstractContextManager[Any]:
        if args.dtype == 'float32':
            return nullcontext()
        if args.device == 'cuda':
            return torch.autocast('cuda', getattr(torch, args.dtype))
        return bfloat16_features(model)

    def predict(data: dict[str, Any]) -> Any:
        with torch.no_grad(), precision():
            return model.test_step(data)
    return predict


def compiler(args: argparse.Namespace, name: str) -> Callable[..., Any]:
    """``torch.compile`` for a subject; the options of the command line are those of the first."""
    chosen = args.compile_options if name == 'A' else None
    return partial(torch.compile, options=chosen) if chosen else torch.compile


def compile_parts(model: nn.Module, compile_: Callable[..., Any],
                  ) -> Callable[[], AbstractContextManager[None]]:
    """Compile backbone and neck of a model, or all of it where it has neither.

    Returns:
        Makes a context in which the model runs what was compiled.
    """
    found = [getattr(model, name, None) for name in ('backbone', 'neck')]
    parts = [part for part in found if isinstance(part, nn.Module)] or [model]
    forms = {part: compile_(part.forward) for part in parts}

    @contextmanager
    def compiled() -> Iterator[None]:
        for part, form in forms.items():
            part.forward = form
        try:
            yield
        finally:
            for part in forms:
                del part.forward
    return compiled


def build_subject(name: str, config: str, cfg: Config, args: argparse.Namespace) -> Subject:
    """The model of a config and its steps; nothing has run yet."""
    train = args.mode == 'train'
    size = tuple(args.size or synthetic.default_size(cfg))
    with task_scope(cfg):
        model = build_model(cfg, train, size).to(args.device)
        batch = synthetic.make_batch(cfg, train, size, args.batch)
        if args.merge_projections:
            for layer in model.modules():
                if isinstance(layer, DCNv4):
                    layer.merge_projections()
        inputs = model.data_preprocessor(copy.deepcopy(batch), train)['inputs']
        images = inputs['imgs'] if isinstance(inputs, dict) else inputs
        subject = Subject(name, config, model, size, tuple(images.shape[-2:]), holders=[model])
        run = make_step(subject, cfg, args)
    if cfg.get('env_cfg', {}).get('cudnn_benchmark'):
        torch.backends.cudnn.benchmark = True
    prepare = partial(copy.deepcopy, batch)
    subject.steps['eager'] = speed.Step(run, prepare)
    if args.compile_step:
        subject.steps['compiled'] = speed.Step(compiler(args, name)(run), prepare)
    elif args.compile:
        context = compile_parts(model, compiler(args, name))

        def run_compiled(data: dict[str, Any]) -> Any:
            with context():
                return run(data)
        subject.steps['compiled'] = speed.Step(run_compiled, prepare)
    return subject


def warm_up(step: speed.Step, args: argparse.Namespace) -> float:
    """Run a step until it is warm; returns the seconds.

    Raises:
        UserError: It cannot be compiled.
    """
    try:
        return sum(speed.seconds_of(step, args.device) for _ in range(args.warmup))
    except Exception as error:
        dynamo = sys.modules.get('torch._dynamo.exc')
        if dynamo is None or not isinstance(error, dynamo.TorchDynamoException):
            raise
        raise UserError('compile', f'torch cannot compile it ({shorten_text(str(error))})', '',
                        'measure without') from error


def measure(subjects: list[Subject], args: argparse.Namespace) -> dict[str, Any]:
    """All records and ratios; first what is timed, then memory and profile in further steps."""
    steps = {f'{subject.name} {form}': step for subject in subjects
             for form, step in subject.steps.items()}
    warm = {name: warm_up(step, args) for name, step in steps.items()}
    taken = speed.time_in_turn(steps, args.device, args.repetitions)
    records = []
    for subject in subjects:
        for form, step in subject.steps.items():
            name = f'{subject.name} {form}'
            seconds = speed.spread(taken[name])
            held = speed.held_bytes(*subject.holders)
            profile = speed.profile(step, args.device, args.profile_steps,
                                    subject.model if form == 'eager' else None)
            record = dict(
                name=name, config=subject.config, form=form, model=type(subject.model).__name__,
                parameters=sum(p.numel() for p in subject.model.parameters()),
                size=list(subject.size), input_size=list(subject.input_size),
                seconds_per_step=asdict(seconds),
                images_per_s=dict(median=args.batch / seconds.median,
                                  low=args.batch / seconds.high, high=args.batch / seconds.low),
                memory=asdict(speed.peak_memory(step, args.device, held)),
                profile_measure=profile.measure, shares=profile.shares)
            if form == 'eager':
                record.update(slowest_modules=[asdict(p) for p in profile.parts],
                              slowest_classes=[asdict(p) for p in profile.by_class()])
            else:
                record['compile_s'] = max(0.0, warm[name] - args.warmup * seconds.median)
            records.append(record)
    return {'records': records, 'ratios': ratios(taken)}


def ratios(taken: dict[str, list[float]]) -> list[dict[str, Any]]:
    """How many times as fast what is compiled is as what is not, and B as A in the same form."""
    pairs = [(f'{name} compiled', f'{name} eager') for name in 'AB']
    pairs += [(f'B {form}', f'A {form}') for form in ('eager', 'compiled')]
    return [dict(of=of, to=to, times_as_fast=asdict(speed.pairwise_ratio(taken[to], taken[of])))
            for of, to in pairs if of in taken and to in taken]


def print_record(record: dict[str, Any]) -> None:
    """Print what was found of one form of one model."""
    rate, memory = record['images_per_s'], record['memory']
    print(f'  {record["form"]}: {rate["median"]:.2f} images/s ({rate["low"]:.2f} to '
          f'{rate["high"]:.2f}), {1e3 * record["seconds_per_step"]["median"]:.1f} ms a step'
          + (f'; compiled in {record["compile_s"]:.0f} s, not counted' if 'compile_s' in record
             else ''))
    print(f'    peak memory {memory["peak"] / MIB:.1f} MiB, {memory["held"] / MIB:.1f} MiB of them '
          f'held between steps ({memory["measure"]})')
    print(f'    {record["profile_measure"]}: ' + ', '.join(
        f'{kind} {100 * share:.1f} %' for kind, share in record['shares'].items()))
    for title, key in (('slowest modules', 'slowest_modules'), ('by class', 'slowest_classes')):
        for number, part in enumerate(record.get(key, [])[:SLOWEST]):
            label = part['name'] or ('(the model itself)' if key == 'slowest_modules' else '')
            count = f'{part["count"]} x ' if key == 'slowest_classes' and part['kind'] else ''
            print(f'    {title if number == 0 else "":15} {100 * part["share"]:5.1f} % '
                  f'{1e3 * part["seconds"]:9.2f} ms  {label}{" " * bool(label)}'
                  f'{count}{part["kind"]}')


def print_found(found: dict[str, Any], args: argparse.Namespace) -> None:
    """Print all records and ratios."""
    for record in found['records']:
        if record['form'] == 'eager':
            sizes = ['x'.join(map(str, record[key])) for key in ('size', 'input_size')]
            padded = f', padded to {sizes[1]}' if sizes[0] != sizes[1] else ''
            print(f'{record["name"][0]}: {record["config"]}\n  {record["model"]}, '
                  f'{record["parameters"] / 1e6:.2f} M parameters, batches of {args.batch}, images '
                  f'of {sizes[0]} (height x width){padded}')
        print_record(record)
    for ratio in found['ratios']:
        fast = ratio['times_as_fast']
        print(f'{ratio["of"]} is {fast["median"]:.2f} times as fast as {ratio["to"]} '
              f'({fast["low"]:.2f} to {fast["high"]:.2f})')


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    if device == 'cuda':
        name = torch.cuda.get_device_name()
    else:
        facts = Path('/proc/cpuinfo')
        lines = facts.read_text().splitlines() if facts.is_file() else []
        names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
        name = names[0] if names else platform.processor() or platform.machine()
    return {'device': name, 'torch': torch.__version__, 'threads': torch.get_num_threads(),
            'cores': os.cpu_count()}


def check(args: argparse.Namespace) -> None:
    """Raise UserError for options that cannot be met, before anything is read or measured."""
    for name in ('batch', 'repetitions', 'warmup', 'profile_steps'):
        if getattr(args, name) < 1:
            raise UserError(name, f'got {getattr(args, name)}', 'a number >= 1')
    if args.compile_options:
        if not (args.compile or args.compile_step):
            raise UserError('compile_options', 'got it without compiling anything',
                            'it beside --compile or --compile-step')
        try:
            torch.compile(len, options=args.compile_options)
        except (RuntimeError, TypeError) as error:
            raise UserError('compile_options', shorten_text(str(error)),
                            "names and values of torch._inductor.config") from error
    if args.size and min(args.size) < synthetic.LEAST_SIDE:
        raise UserError('size', f'got {args.size[0]} {args.size[1]}', f'at least '
                        f'{synthetic.LEAST_SIDE} each, the largest stride of the backbones')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('device', 'got cuda, but torch finds no CUDA device', '', 'choose cpu')
    if args.dtype == 'float16' and args.device == 'cpu':
        raise UserError('dtype', 'got float16 on a CPU', 'bfloat16 or float32',
                        'float16 is for GPUs')
    if args.merge_projections and args.mode == 'train':
        raise UserError('merge_projections', 'got it with mode train', 'mode inference',
                        'it has no effect in training')


def benchmark(args: argparse.Namespace) -> int:
    """Measure as the command line says; returns the exit code."""
    check(args)
    names = [name for name in (args.config, args.other) if name]
    configs = [read_config(name, args.cfg_options) for name in names]
    needed = {'train': ('train_dataloader', 'optim_wrapper'), 'inference': ('test_dataloader', )}
    for cfg in configs:
        require(cfg, *needed[args.mode])
    check_outputs({'json': args.json}, [file for cfg in configs for file in named_files(cfg)])
    torch.manual_seed(0)
    subjects = [build_subject(*parts, args) for parts in zip('AB', names, configs, strict=False)]
    facts = machine(args.device)
    print(f'{facts["device"]}, {facts["threads"]} of {facts["cores"]} cores, torch '
          f'{facts["torch"]}; {args.mode}, {args.dtype}, batch {args.batch}, '
          f'{args.repetitions} repetitions: medians, and quartiles in brackets', flush=True)
    with task_scope(configs[0]):
        found = measure(subjects, args)
    print_found(found, args)
    if args.json is not None:
        facts = {'options': vars(args), 'machine': facts, **found}
        write_text(args.json, json.dumps(facts, indent=2, default=str) + '\n')
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(prog='benchmark.py', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('config', metavar='CONFIG', help="config file, or an installed package's: PACKAGE::CONFIG")
    add('other', metavar='CONFIG2', nargs='?', help='another one, timed in turn with the first')
    add('--mode', default='inference', choices=['train', 'inference'],
        help='what a step is (default: %(default)s)')
    add('--batch', type=int, default=1, metavar='N', help='images in a step (default: 1)')
    add('--size', type=int, nargs=2, metavar=('H', 'W'),
        help="height and width of the images (default: what the config's pipeline crops; of "
             'detectors what it makes of a picture of 800 x 1280)')
    add('--compile', action='store_true', help='also with backbone and neck compiled, in turn')
    add('--compile-step', action='store_true', help='also with the whole step compiled, in turn')
    add('--compile-options', nargs='+', action=DictAction, metavar='NAME=VALUE',
        help='of torch.compile for the first config, e.g. layout_optimization=False')
    add('--merge-projections', action='store_true',
        help='inference: join the projections of DCNv4 into one product')
    add('--dtype', default='float32', choices=DTYPES,
        help='precision, mixed but for float32 (default: %(default)s)')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu',
        choices=['cpu', 'cuda'], help='default: %(default)s')
    add('--repetitions', type=int, default=20, metavar='N', help='timed steps (default: 20)')
    add('--warmup', type=int, default=3, metavar='N', help='steps before (default: 3)')
    add('--profile-steps', type=int, default=3, metavar='N',
        help='steps under the profiler, of which the fastest counts (default: 3)')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
        help='change keys of the config, of both if there are two')
    add('--json', metavar='FILE', help='write all numbers to this file, too')
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(benchmark, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
