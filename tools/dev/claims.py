"""Try the papers' claims at mini size: train, compare, and write docs/claims.md with its picture.

``python tools/dev/claims.py`` trains every variant of ``tools/dev/paper_claims/trials.py`` with
three seeds through ``tools/train.py``, same iterations and pictures, and prints a table of what
came out and one of verdicts. It reports what it finds, also where that is not what a paper says,
so its exit code says nothing about the claims.

What was measured is kept in ``docs/claims.json`` after each training, so a run that was stopped
goes on with what is missing. A training of which neither config nor code nor data nor frameworks
have changed since is not repeated; ``--again`` repeats it.
"""
from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from mmengine.registry import MODELS, DefaultScope  # noqa: E402
from torch import nn  # noqa: E402

from mmdcn.analysis import complexity, speed  # noqa: E402
from mmdcn.apis import cli  # noqa: E402
from mmdcn.apis.config import load_config  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402
from mmdcn.writing import write_text  # noqa: E402
from tools.analysis.curves import read_run  # noqa: E402
from tools.dev import learn_results  # noqa: E402
from tools.dev.learn_results import Outcome, Record  # noqa: E402
from tools.dev.paper_claims import page, picture  # noqa: E402
from tools.dev.paper_claims.trials import BATCH, CLAIMS, SEEDS, VARIANTS, Variant  # noqa: E402
from tools.dev.paper_claims.verdicts import ACCURACY, Result  # noqa: E402
from tools.dev.trainings import obtain, run  # noqa: E402

_IMAGE = (3, 64, 64)


def training_name(variant: str, seed: int) -> str:
    """Key of a training in the file of results."""
    return f'{variant} seed {seed}'


def train(variant: Variant, seed: int, work_dir: Path, label: str) -> Outcome:
    """Train a variant in ``work_dir``; its curve, and what the model costs."""
    work_dir.mkdir(parents=True, exist_ok=True)
    start = time.time()
    run(['tools/train.py', variant.config, '--work-dir', str(work_dir), '--seed', str(seed),
         '--cfg-options', *variant.options], work_dir / 'train.txt', label)
    minutes = (time.time() - start) / 60
    curve = read_run(str(work_dir)).metrics['accuracy/top1']
    metrics = {f'{ACCURACY}{iteration}': value for iteration, value in curve}
    return Outcome({**metrics, **costs(variant)}, curve[-1][0], minutes)


def costs(variant: Variant) -> dict[str, float]:
    """Parameters and multiply-adds for one image; bytes of memory of a training step.

    The memory is that of the weights, and the most that features and gradients take beside them.
    """
    cfg = load_config(str(ROOT / variant.config), list(variant.options))

    def build() -> nn.Module:
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            return MODELS.build(cfg.model)

    counted = complexity.count(complexity.build_on_meta(build), (1, *_IMAGE))
    model = build().train()
    images = torch.zeros(BATCH, *_IMAGE)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(images).square().mean().backward()

    memory = speed.peak_memory(speed.Step(step), 'cpu', speed.held_bytes(model))
    return {'params': counted.params, 'macs': counted.macs, 'memory': memory.peak}


def train_all(names: list[str], args: argparse.Namespace) -> None:
    """Make sure of the results of some variants, one seed of all after the other."""
    trained, minutes = 0, 0.0
    for number, (seed, name) in enumerate(((seed, name) for seed in SEEDS for name in names), 1):
        variant, label = VARIANTS[name], training_name(name, seed)
        work_dir = args.work_dir / label.replace(' ', '-')
        print(f'[{number}/{len(SEEDS) * len(names)}] ', end='')
        record, new = obtain(label, variant.config, variant.options, args.results, args.again,
                             lambda v=variant, s=seed, w=work_dir, n=label: train(v, s, w, n))
        trained, minutes = trained + new, minutes + new * record.outcome.minutes
    print(f'{trained} trainings in {minutes:.0f} min', flush=True)


def read_results(path: Path) -> tuple[dict[str, Result], dict[str, Record]]:
    """Results by variant and their records by training.

    Raises:
        UserError: The file lacks a training.
    """
    records = learn_results.read_records(path)
    wanted = {name: [training_name(name, seed) for seed in SEEDS] for name in VARIANTS}
    missing = [training for trainings in wanted.values() for training in trainings
               if training not in records]
    if missing:
        raise UserError('results', f'{path} lacks {len(missing)} trainings, first {missing[0]!r}',
                        'three seeds of every variant', 'make claims')
    return ({name: Result.of([records[training] for training in trainings])
             for name, trainings in wanted.items()},
            {training: records[training] for trainings in wanted.values()
             for training in trainings})


def variants_of(claims: Iterable[str]) -> list[str]:
    """Names of the variants that some claims need, in order, each once.

    Raises:
        UserError: There is no such claim.
    """
    claims = list(claims)
    for claim in claims:
        if claim not in CLAIMS:
            raise UserError('claim', f'got {claim!r}', f'any of {", ".join(CLAIMS)}')
    return list(dict.fromkeys(name for claim in claims for name in CLAIMS[claim].variants))


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(prog='claims.py', description=__doc__.splitlines()[0])
    parser.add_argument('claims', nargs='*', metavar='CLAIM',
                        help=f'train only for these, of {", ".join(CLAIMS)}; page and picture '
                             'need all')
    parser.add_argument('--again', action='store_true',
                        help='train what has not changed since its last result, too')
    parser.add_argument('--report', action='store_true',
                        help='train nothing: write page and picture of the results as they are')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'claims')
    parser.add_argument('--results', type=Path, default=ROOT / 'docs' / 'claims.json',
                        help='file of the results, default: docs/claims.json')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs',
                        help='folder of claims.md and images/claims.png, default: docs')
    return parser


def claims(args: argparse.Namespace) -> int:
    """Train, write and print as the command line says; returns the exit code."""
    names = variants_of(args.claims or CLAIMS)
    if not args.report:
        train_all(names, args)
        if args.claims:
            return 0
    results, records = read_results(args.results)
    drawn = args.out / page.PICTURE
    drawn.parent.mkdir(parents=True, exist_ok=True)
    picture.draw(results, drawn)
    write_text(args.out / 'claims.md', page.render(results, records))
    print(f'\n{page.summary(results)}\n\nclaims.py: page in {args.out / "claims.md"}, picture in '
          f'{drawn}')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns its exit code."""
    return cli.run_tool(claims, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
