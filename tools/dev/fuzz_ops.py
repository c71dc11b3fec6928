#!/usr/bin/env python
"""Call the operators at random: legal calls must equal the reference, illegal ones be refused well.

    python tools/dev/fuzz_ops.py --legal 20000 --illegal 5000

Legal calls (``fuzzing/legal.py``) are compared in result and gradients with ``ops_dcn.reference``;
illegal ones (``fuzzing/illegal.py``) must be a ValueError with name, got, expected and remedy. Each
call follows from seed and number alone: ``--only legal:dcnv4:17`` repeats one.
"""
from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from mmdcn.apis import cli  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402
from ops_dcn.operators import OPERATORS, Call  # noqa: E402
from tools.dev.fuzzing import illegal, legal  # noqa: E402

_SHOWN = 20


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(prog='fuzz_ops.py', description='Call the operators at '
                                     'random.')
    add = parser.add_argument
    add('--legal', type=int, default=20000, metavar='N', help='number of legal calls')
    add('--illegal', type=int, default=5000, metavar='N', help='number of illegal calls')
    add('--seed', type=int, default=0, help='another seed gives other calls')
    add('--only', metavar='KIND:OPERATOR:NUMBER', help='repeat one call and show its arguments')
    return parser


def run_call(kind: str, name: str, number: int, seed: int) -> tuple[str | None, str, Call]:
    """One call.

    Args:
        kind: ``legal`` or ``illegal``.
        name: Of the operator.
        number: Of the call among those of its kind and operator.
        seed: Seed of all calls.

    Returns:
        What is wrong, or None; what was broken of an illegal call; its arguments.
    """
    rng = Random(f'{seed}:{kind}:{name}:{number}')
    torch.manual_seed(rng.getrandbits(32))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of torch, about nested and quantized tensors
        if kind == 'illegal':
            done, call = illegal.draw_call(name, rng)
            return illegal.find_fault(name, call), done, call
        call = legal.draw_call(name, rng)
        try:
            return legal.find_fault(name, call, rng), '', call
        except Exception as error:  # what is looked for
            return f'{type(error).__name__}: {error}', '', call


def fuzz(args: argparse.Namespace) -> int:
    """Run the calls; returns 1 if one of them is wrong."""
    if args.only:
        return _repeat(args.only, args.seed)
    start = last = time.monotonic()
    faults: list[str] = []
    done = 0
    for kind in ('legal', 'illegal'):
        for number in range(getattr(args, kind)):
            name = list(OPERATORS)[number % len(OPERATORS)]
            fault, change, _ = run_call(kind, name, number, args.seed)
            if fault:
                faults.append(f'{kind}:{name}:{number} {change}: {fault}')
            done += 1
            if time.monotonic() - last > 10:
                last = time.monotonic()
                print(f'{done}/{args.legal + args.illegal} calls, {len(faults)} faults', flush=True)
    for line in faults[:_SHOWN]:
        print(line)
    print(f'fuzz_ops.py: {args.legal} legal and {args.illegal} illegal calls of seed {args.seed} '
          f'in {time.monotonic() - start:.0f} s: {len(faults)} faults')
    return int(bool(faults))


def _repeat(only: str, seed: int) -> int:
    kind, _, rest = only.partition(':')
    name, _, number = rest.partition(':')
    if kind not in ('legal', 'illegal') or name not in OPERATORS or not number.isdigit():
        raise UserError('only', f'got {only!r}', f'legal or illegal, one of {", ".join(OPERATORS)} '
                        'and a number, with colons between')
    fault, change, call = run_call(kind, name, int(number), seed)
    for key, tensor in call.tensors.items():
        shown = (tensor.dtype, tuple(tensor.shape), tensor.stride()) if isinstance(
            tensor, torch.Tensor) and tensor.layout == torch.strided and not tensor.is_nested \
            else type(tensor)
        print(f'{key}: {shown}')
    print(call.options)
    print(f'{change} -> {fault or "right"}')
    return int(bool(fault))


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, 1 for faults, or 2 for bad input."""
    return cli.run_tool(fuzz, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
