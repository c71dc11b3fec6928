#!/usr/bin/env python
"""Draw where a network samples for one position: points and weights by layer and group.

    python tools/analysis/sampling_points.py CONFIG CHECKPOINT photo.jpg --position 0.4 0.6
    python tools/analysis/sampling_points.py CONFIG CHECKPOINT photo.jpg --layers 'levels.2.**.dcn'
"""
from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
from torch import nn  # noqa: E402

from mmdcn import writing  # noqa: E402
from mmdcn.analysis.features import match_layers  # noqa: E402
from mmdcn.analysis.sampling import (  # noqa: E402
    Sampling,
    first_center,
    record_sampling,
    stride_of,
)
from mmdcn.apis import cli  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402

matplotlib.use('Agg')  # pictures are written, never shown: no display is needed


@dataclass
class Look:
    """What one layer looks at for one position, in pixels of the image (0: first pixel's center).

    Attributes:
        name: Layer.
        stride: Image pixels per pixel of the layer's input.
        center: (x, y) of the layer's pixel nearest to the position.
        points: (G, K, 2) sampling points (x, y).
        grid: (G, K, 2) the same without learned offsets.
        weights: (G, K).
    """

    name: str
    stride: int
    center: np.ndarray
    points: np.ndarray
    grid: np.ndarray
    weights: np.ndarray


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = cli.build_image_parser(
        'sampling_points.py', 'Draw where a network samples for one position of an image.',
        out_dir='analysis')
    parser.add_argument('--position', type=float, nargs=2, default=(0.5, 0.5),
                        metavar=('X', 'Y'), help='shares of width and height of what the network '
                        'sees (default: 0.5 0.5)')
    parser.add_argument('--layers', nargs='+', metavar='LAYER',
                        help="names in the backbone, '*' for one part, '**' for several (default: "
                             'the last deformable layer of each resolution)')
    parser.add_argument('--groups', type=int, default=6, metavar='N',
                        help='groups drawn by themselves, evenly chosen (default: 6)')
    return parser


def look_at(name: str, sampling: Sampling, backbone: nn.Module,
            image_size: tuple[int, int], position: tuple[float, float]) -> Look:
    """The samples of the layer's output pixel that is nearest to a position.

    Args:
        name: Layer.
        sampling: Of one image; the first of the batch counts.
        backbone: The network, for where its pixels lie in the image.
        image_size: (H, W) of its input.
        position: Shares of width and height.
    """
    height, width = out_size = sampling.weights.shape[1:3]
    out_stride = stride_of(out_size, image_size)
    stride = stride_of(sampling.size, image_size)
    first = first_center(backbone, out_stride)
    wanted = np.array([position[0] * image_size[1], position[1] * image_size[0]]) - 0.5
    pixel = ((wanted - first) / out_stride).round().clip(0, [width - 1, height - 1])
    x, y = pixel.astype(int)
    offset = first_center(backbone, stride)
    points, grid = (offset + stride * t[0, y, x].double().cpu().numpy()
                    for t in (sampling.points, sampling.grid))
    return Look(name, stride, first + out_stride * pixel, points, grid,
                sampling.weights[0, y, x].double().cpu().numpy())


def choose(samplings: dict[str, Sampling], backbone: nn.Module,
           patterns: list[str] | None) -> list[str]:
    """Layers to draw: those that patterns name, or the last one of each resolution.

    Raises:
        UserError: The patterns name no deformable layer.
    """
    if patterns is None:
        return list({sampling.size: name for name, sampling in samplings.items()}.values())
    named = {name for names in match_layers(backbone, patterns).values() for name in names}
    chosen = [name for name in samplings if name in named]
    if not chosen:
        raise UserError('layers', f'got {" ".join(patterns)}',
                        f'names of deformable layers: {", ".join(list(samplings)[:8])}, ...')
    return chosen


def draw(image: np.ndarray, looks: list[Look], groups: int, path: Path) -> None:
    """Draw a row per layer: all groups on the whole image, then single groups, enlarged.

    In a single group a line leads from each point of the undeformed kernel to its sample; the
    sample's colour is its weight, its area the weight's share of the layer's largest here.
    """
    from matplotlib import pyplot as plt
    columns = 1 + min(groups, max(look.weights.shape[0] for look in looks))
    figure, axes = plt.subplots(len(looks), columns, figsize=(2 * columns + 1, 2.3 * len(looks)),
                                squeeze=False, layout='constrained')
    for row, look in zip(axes, looks, strict=True):
        for axis in row:
            axis.set_axis_off()
        chosen = _spread(look.weights.shape[0], columns - 1)
        window = _window(look, chosen, max(image.shape[:2]))
        _draw_overview(row[0], image, look, window)
        for axis, group in zip(row[1:], chosen, strict=False):
            shown = _draw_group(axis, image, look, group, window)
        figure.colorbar(shown, ax=row.tolist(), shrink=0.85, aspect=14, pad=0.01)
    with writing.whole_file(path) as part:
        figure.savefig(part, dpi=200)
    plt.close(figure)


def _spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of ``count`` numbers, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist()


def _window(look: Look, chosen: list[int], side: int) -> tuple[np.ndarray, float]:
    """Center and half side of the part that is drawn: that which holds the points of the groups.

    Points far beyond an image of that side are dropped, as they contribute nothing.
    """
    reach = np.abs(look.points[chosen] - look.center).max()
    return look.center, float(min(max(reach, 2 * look.stride) + look.stride, 0.75 * side))


def _draw_overview(axis: Any, image: np.ndarray, look: Look,
                   window: tuple[np.ndarray, float]) -> None:
    from matplotlib import pyplot as plt
    axis.imshow(_faded(image))
    colors = plt.get_cmap('turbo')(np.linspace(0.05, 0.95, len(look.points)))
    for points, weights, color in zip(look.points, look.weights, colors, strict=True):
        axis.scatter(*points.T, s=1 + 12 * _shares(weights, look), color=color, linewidths=0)
    (x, y), half = window
    axis.add_patch(plt.Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False,
                                 edgecolor='black', linewidth=0.7))
    axis.set_xlim(-0.5, image.shape[1] - 0.5)
    axis.set_ylim(image.shape[0] - 0.5, -0.5)
    axis.set_title(f'{look.name}\nstride {look.stride}, {len(look.points)} groups', fontsize=7)


def _draw_group(axis: Any, image: np.ndarray, look: Look, group: int,
                window: tuple[np.ndarray, float]) -> Any:
    limit = np.abs(look.weights).max() or 1.0
    signed = look.weights.min() < 0
    axis.imshow(_faded(image))
    points, grid, weights = look.points[group], look.grid[group], look.weights[group]
    axis.plot(*np.stack([grid, points]).transpose(2, 0, 1), color='black', linewidth=0.5)
    axis.scatter(*grid.T, s=12, marker='+', color='black', linewidths=0.6)
    axis.scatter(*look.center, s=60, marker='*', color='gold', edgecolors='black', linewidths=0.5)
    shown = axis.scatter(*points.T, s=6 + 70 * _shares(weights, look), c=weights,
                         cmap='coolwarm' if signed else 'viridis', edgecolors='black',
                         linewidths=0.4, vmin=-limit if signed else 0, vmax=limit, zorder=3)
    (x, y), half = window
    axis.set_xlim(x - half, x + half)
    axis.set_ylim(y + half, y - half)
    axis.set_title(f'group {group + 1}', fontsize=7)
    return shown


def _shares(weights: np.ndarray, look: Look) -> np.ndarray:
    return np.abs(weights) / (np.abs(look.weights).max() or 1.0)


def _faded(image: np.ndarray) -> np.ndarray:
    return (0.6 * image + 0.4 * 255).astype(np.uint8)


def analyse(args: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    if not all(0 <= share <= 1 for share in args.position):
        raise UserError('position', f'got {args.position}',
                        'shares of width and height within 0..1')
    if args.groups < 1:
        raise UserError('groups', f'got {args.groups}', 'at least 1')
    predictor, images, _ = cli.open_images(args)
    for path, place in images.items():
        inputs = predictor.read(path)
        with record_sampling(predictor.backbone) as samplings:
            predictor.backbone(inputs)
        names = choose(samplings, predictor.backbone, args.layers)
        looks = [look_at(name, samplings[name], predictor.backbone, tuple(inputs.shape[-2:]),
                         args.position) for name in names]
        target = f'{place}_sampling_points'
        draw(predictor.show(inputs), looks, args.groups, Path(f'{target}.png'))
        arrays = {f'{look.name}.{part}': getattr(look, part) for look in looks
                  for part in ('center', 'points', 'grid', 'weights')}
        with writing.whole_file(f'{target}.npz') as part:
            np.savez_compressed(part, image=np.array(path), **arrays)
        print(f'{path}: {", ".join(names)}')
    print(f'sampling_points.py: {len(images)} images; results in {args.out_dir}')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(analyse, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
