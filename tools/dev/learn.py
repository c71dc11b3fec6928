"""Train every mini system to its threshold through ``tools/train.py`` and ``tools/test.py``.

``python tools/dev/learn.py [SYSTEM ...]`` prints one table row for each system and exits with 1 if
a metric stays below its threshold, or if the negative control (mostly the same training with the
backbone frozen at its initialisation, so that little but the heads can learn) reaches it. Errors
have ceilings instead. Lengths are fixed in iterations by the configs, never in time. A new system
joins by one entry in ``SYSTEMS``.

What was reached is kept in ``docs/learn.json``. A training of which neither config nor code nor
data nor frameworks have changed since is not repeated, and the table names the commit of its
result; ``--again`` repeats it.
"""
from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mmdcn.apis import cli  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402
from tools.dev.learn_results import Outcome, Record  # noqa: E402
from tools.dev.trainings import obtain, run, table  # noqa: E402

FROZEN = ('model.backbone.frozen_stages=4',)
VIT_FROZEN = ('model.backbone.frozen_stages=8',  # not what leads from its blocks to the detector
              "optim_wrapper.paramwise_cfg={'custom_keys': {'backbone.': {'lr_mult': 0.0}}}")
# Behind a frozen backbone, the neck and four convolutions in each of three heads learn nearly all
# (0.886); frozen as well, they leave what two linear layers of a head can do.
CASCADE_FROZEN = (*FROZEN, "optim_wrapper.paramwise_cfg={'custom_keys': {"
                  "'neck.': {'lr_mult': 0.0}, '.shared_convs.': {'lr_mult': 0.0}}}")

NUSCENES = 'NuScenes metric/pred_instances_3d_NuScenes'


@dataclass(frozen=True)
class System:
    """One mini system.

    Attributes:
        config: Its config file.
        gates: What its metrics reach and its control's do not.
        control: Options of the control, or the name of the system that is it.
        ceilings: What its errors stay below and its control's do not.
    """

    config: str
    gates: dict[str, float]
    control: tuple[str, ...] | str = FROZEN
    ceilings: dict[str, float] = field(default_factory=dict)

    def verdict(self, metric: str, value: float, control: float) -> str:
        """``ok``, or what is wrong with a metric of the system and that of its control."""
        def good(reached: float) -> bool:
            if metric in self.ceilings:
                return reached < self.ceilings[metric]
            return reached >= self.gates[metric]

        if not good(value):
            return 'threshold missed'
        return 'control too good' if good(control) else 'ok'


SYSTEMS = {
    'mask-rcnn': System(
        'configs/mini/mask-rcnn_flash-internimage-pico_fpn_1xb4-2k_mini-coco-160x128.py',
        {'coco/bbox_mAP_50': 0.75, 'coco/segm_mAP_50': 0.70}),
    'mask-rcnn-internimage': System(
        'configs/mini/mask-rcnn_internimage-pico_fpn_1xb4-2k_mini-coco-160x128.py',
        {'coco/bbox_mAP_50': 0.75}),
    'mask-rcnn-convnext': System(
        'configs/mini/mask-rcnn_convnext-atto_fpn_1xb4-2k_mini-coco-160x128.py',
        {'coco/bbox_mAP_50': 0.75}),
    'mask-rcnn-vit': System(
        'configs/mini/mask-rcnn_vit-pico_fpn_1xb4-2k_mini-coco-160x128.py',
        {'coco/bbox_mAP_50': 0.75}, VIT_FROZEN),
    'cascade-mask-rcnn': System(
        'configs/mini/cascade-mask-rcnn_flash-internimage-pico_fpn_1xb4-2k_mini-coco-160x128.py',
        {'coco/bbox_mAP_50': 0.75}, CASCADE_FROZEN),
    'dino': System(
        'configs/mini/dino-4scale_flash-internimage-pico_1xb4-3k_mini-coco-160x128.py',
        {'coco/bbox_mAP_50': 0.55}),
    'cb-dino': System(
        'configs/mini/cb-dino-4scale_internimage-pico_1xb4-3k_mini-coco-160x128.py',
        {'coco/bbox_mAP_50': 0.55}, ("model.backbone.frozen_patterns=['.']",)),
    'upernet': System(
        'configs/mini/upernet_flash-internimage-pico_1xb16-2k_mini-ade-128x128.py',
        {'mIoU': 50.0}),
    'upernet-internimage': System(
        'configs/mini/upernet_internimage-pico_1xb8-2k_mini-ade-128x128.py', {'mIoU': 50.0}),
    'upernet-convnext': System(
        'configs/mini/upernet_convnext-atto_1xb8-2k_mini-ade-128x128.py', {'mIoU': 50.0}),
    'upernet-vit': System(
        'configs/mini/upernet_vit-pico_1xb16-2k_mini-ade-128x128.py', {'mIoU': 50.0},
        VIT_FROZEN),
    'mask2former': System(
        'configs/mini/mask2former_flash-internimage-pico_1xb8-2k_mini-ade-128x128.py',
        {'mIoU': 28.0}),  # two seeds reached 34.3 and 31.7
    'classifier': System(
        'configs/mini/flash-internimage-pico_1xb48-2k_mini-imagenet-64x64.py',
        {'accuracy/top1': 88.0}),
    'classifier-internimage': System(
        'configs/mini/internimage-pico_1xb48-2k_mini-imagenet-64x64.py', {'accuracy/top1': 85.0}),
    'classifier-convnext': System(
        'configs/mini/convnext-mini_1xb48-2k_mini-imagenet-64x64.py', {'accuracy/top1': 85.0}),
    'classifier-convnext-dcnv4': System(
        'configs/mini/convnext-mini-dcnv4_1xb48-2k_mini-imagenet-64x64.py',
        {'accuracy/top1': 85.0}),
    'classifier-convnext-iso': System(
        'configs/mini/convnext-iso-pico_1xb48-2k_mini-imagenet-64x64.py', {'accuracy/top1': 85.0},
        ('model.backbone.frozen_stages=1',)),
    'classifier-roadmap': System(
        'configs/mini/resnet-pico-roadmap14_1xb48-2k_mini-imagenet-64x64.py',
        {'accuracy/top1': 85.0}),
    'classifier-vit': System(
        'configs/mini/vit-pico_1xb16-3k_mini-imagenet-64x64.py', {'accuracy/top1': 85.0},
        ('model.backbone.frozen_stages=8',)),
    'classifier-vit-dcnv4': System(
        'configs/mini/vit-pico-dcnv4_1xb48-2k_mini-imagenet-64x64.py', {'accuracy/top1': 85.0},
        ('model.backbone.frozen_stages=6',)),
    # Eight scenes can be learnt by heart behind any backbone, so the controls are the untrained
    # network and, of the velocities, the network without history.
    'bevformer-v2-t1': System(
        'configs/mini/bevformer-v2-t1_flash-internimage-pico_1xb2-1k_mini-nuscenes.py',
        {f'{NUSCENES}/mAP': 0.20},
        ('train_cfg.max_iters=1', 'optim_wrapper.optimizer.lr=0.0')),
    'bevformer-v2-t2': System(
        'configs/mini/bevformer-v2-t2_flash-internimage-pico_1xb2-1k_mini-nuscenes.py',
        {}, 'bevformer-v2-t1', {f'{NUSCENES}/mAVE': 1.7}),
}


def train_and_test(name: str, config: str, work_dir: Path,
                   options: tuple[str, ...] = ()) -> Outcome:
    """Train ``config`` in ``work_dir``, evaluate its last checkpoint with ``tools/test.py``."""
    work_dir.mkdir(parents=True, exist_ok=True)
    extra = ['--cfg-options', *options] if options else []
    start = time.time()
    run(['tools/train.py', config, '--work-dir', str(work_dir), '--seed', '0', *extra],
        work_dir / 'train.txt', name)
    checkpoint = Path((work_dir / 'last_checkpoint').read_text().strip())
    out = work_dir / 'metrics.json'
    run(['tools/test.py', config, str(checkpoint), '--work-dir', str(work_dir / 'test'),
         '--metrics', str(out), *extra], work_dir / 'test.txt', name)
    iterations = int(re.search(r'(\d+)\.pth$', checkpoint.name).group(1))
    # nuScenes has errors that are no number, such as the speed of a barrier.
    metrics = {key: value for key, value in json.loads(out.read_text()).items() if value == value}
    return Outcome(metrics, iterations, (time.time() - start) / 60)


def obtain_system(name: str, config: str, options: tuple[str, ...],
                  args: argparse.Namespace) -> tuple[Record, bool]:
    """The record of a system or of its control, kept or made, and whether it was trained now."""
    work_dir = args.work_dir / name.replace(' ', '-')
    return obtain(name, config, options, args.results, args.again,
                  lambda: train_and_test(name, config, work_dir, options))


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(prog='learn.py', description=__doc__.splitlines()[0])
    parser.add_argument('systems', nargs='*', metavar='SYSTEM', help=f'any of {", ".join(SYSTEMS)}')
    parser.add_argument('--again', action='store_true',
                        help='train what has not changed since its last result, too')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'learn')
    parser.add_argument('--results', type=Path, default=ROOT / 'docs' / 'learn.json',
                        help='file of the results, default: docs/learn.json')
    return parser


def learn(args: argparse.Namespace) -> int:
    """Train as the command line says; returns 0 when every gate holds, 1 otherwise."""
    unknown = [name for name in args.systems if name not in SYSTEMS]
    if unknown:
        raise UserError('system', f'got {unknown[0]!r}', f'any of {", ".join(SYSTEMS)}')
    rows = [('system', 'metric', 'value', 'threshold', 'control', 'iterations', 'minutes',
             'result of', 'verdict')]
    done: dict[str, tuple[Record, bool]] = {}

    def obtained(name: str, config: str, options: tuple[str, ...] = ()) -> tuple[Record, bool]:
        if name not in done:
            done[name] = obtain_system(name, config, options, args)
        return done[name]

    good = True
    for name in args.systems or SYSTEMS:
        system = SYSTEMS[name]
        result, new = obtained(name, system.config)
        control, new_control = (
            obtained(system.control, SYSTEMS[system.control].config)
            if isinstance(system.control, str) else
            obtained(f'{name} control', system.config, system.control))
        origin = ' / '.join(dict.fromkeys((result.commit, control.commit)))
        for metric, limit in (system.gates | system.ceilings).items():
            value, other = result.outcome.metrics[metric], control.outcome.metrics[metric]
            verdict = system.verdict(metric, value, other)
            good &= verdict == 'ok'
            rows.append((name, metric, f'{value:.3f}', f'{limit:.3f}', f'{other:.3f}',
                         str(result.outcome.iterations), f'{result.outcome.minutes:.1f}',
                         origin if new or new_control else f'{origin}, kept', verdict))
    minutes = sum(record.outcome.minutes for record, new in done.values() if new)
    print(f'\n{table(rows)}\n\ntrained for {minutes:.0f} min; + after a commit: with changes')
    return 0 if good else 1


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, 1 where a gate does not hold, or 2 for bad input."""
    return cli.run_tool(learn, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
