#!/usr/bin/env python
"""Print InternImage's family as its scaling rule gives it, beside the published sizes.

Each row takes phi from the published width, so the depth is what the rule predicts. Counted are
classifiers of 1000 classes at 224x224 px; the rule's have the settings of the origin (T).

    python tools/model_family.py
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch import Tensor, nn  # noqa: E402

from mmcls_custom.backbones import InternImage  # noqa: E402
from mmcls_custom.backbones.scaling import Stacking, phi_of_width, scale  # noqa: E402
from mmcls_custom.necks import InternImageClipNeck, InternImageConvNeck  # noqa: E402
from mmdcn.analysis.complexity import Complexity, build_on_meta, count  # noqa: E402
from mmdcn.apis import cli  # noqa: E402

PUBLISHED = ('tiny', 'small', 'base', 'large', 'xlarge', 'huge')
NOTES = """C1: width of the first level, C': channels per group.
The published widths are no whole steps of phi (64, 87, 118, 161, 219, 298 would be). B keeps the
depth of S, H is deeper than the rule and doubles C'. G (512, 2-2-48-4) breaks L_1 = L_2 = L_4."""
_CLASSES = 1000
_IMAGE = (1, 3, 224, 224)


class _Classifier(nn.Module):
    """InternImage with the neck its width asks for and a linear head."""

    def __init__(self, clip: bool, arch: str | dict[str, Any], **settings: Any) -> None:
        super().__init__()
        self.backbone = InternImage(arch, out_indices=(2, 3), **settings)
        channels = self.backbone.out_channels
        self.neck = InternImageClipNeck(channels) if clip else InternImageConvNeck(channels[-1])
        self.head = nn.Linear(self.neck.out_channels, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.backbone(x))[0])


def measure(arch: str | dict[str, Any]) -> Complexity:
    """Parameters and multiply-adds of the classifier of a preset or of the rule's numbers."""
    # T is published without layer scale; the presets hold the downstream settings.
    settings = dict(layer_scale=None) if arch == 'tiny' else {}
    return count(build_on_meta(lambda: _Classifier(arch == 'huge', arch, **settings)), _IMAGE)


def row(name: str) -> dict[str, Any]:
    """One published size: its four numbers and cost, and what the rule gives at its width."""
    published = Stacking.of(InternImage.archs[name])
    phi = phi_of_width(published.channels)
    rule = scale(phi, group_channels=published.group_channels)
    result: dict[str, Any] = dict(name=name, phi=phi)
    for key, stacking, arch in (('rule', rule, rule.arch), ('published', published, name)):
        cost = measure(arch)
        result[key] = dict(channels=stacking.channels, group_channels=stacking.group_channels,
                           depths=stacking.depths, params=cost.params, macs=cost.macs)
    return result


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text, one line each."""
    def half(model: dict[str, Any]) -> str:
        depths = '-'.join(map(str, model['depths']))
        return (f'{model["channels"]:>4} {model["group_channels"]:>3} {depths:>9} '
                f'{model["params"] / 1e6:8.1f} {model["macs"] / 1e9:7.1f}')
    columns = f"{'C1':>4} {'C':>2}' {'depths':>9} {'params M':>8} {'MACs G':>7}"
    head = f"{'':7} {'phi':>5} | {columns} | {columns}"
    titles = f"{'':13} | {'by the rule':{len(columns)}} | published"
    lines = [f'{item["name"]:7} {item["phi"]:5.2f} | {half(item["rule"])} | '
             f'{half(item["published"])}' for item in rows]
    return '\n'.join([titles, head, *lines])


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    return argparse.ArgumentParser(prog='model_family.py', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)


def print_family(args: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    print(table([row(name) for name in PUBLISHED]))
    print(NOTES)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns its exit code."""
    return cli.run_tool(print_family, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
