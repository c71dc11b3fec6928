#!/usr/bin/env python
"""Measure where the deformable layers of a network sample: offsets, weights, per layer.

    python tools/analysis/sampling_stats.py CONFIG CHECKPOINT photos
"""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from mmdcn import writing  # noqa: E402
from mmdcn.analysis.sampling import Sampling, record_sampling, stride_of  # noqa: E402
from mmdcn.apis import cli  # noqa: E402
from mmdcn.apis.inference import Predictor  # noqa: E402

COLUMNS = {
    'offset_mean': 'offset', 'offset_p50': 'p50', 'offset_p95': 'p95', 'offset_max': 'max',
    'offset_mean_image': 'in image', 'outside': 'outside', 'weight_mean': 'weight',
    'weight_std': 'std', 'weight_negative': 'neg.', 'effective_points': 'eff. points'}


class LayerStats:
    """Statistics of one layer over images; see :meth:`summary`."""

    kept = 100_000

    def __init__(self, stride: int) -> None:
        self.stride = stride
        self.samples = 0
        self.longest = 0.0
        self.sums = torch.zeros(6, dtype=torch.float64)
        self.lengths: list[Tensor] = []
        self.points = 0

    def add(self, sampling: Sampling) -> None:
        """Take in the samples of one image."""
        length = (sampling.points - sampling.grid).norm(dim=-1)
        weights = sampling.weights
        # How many equal weights would give the same sum of squares.
        effective = weights.abs().sum(-1).square() / weights.square().sum(-1)
        self.points = weights.shape[-1]
        self.samples += length.numel()
        self.longest = max(self.longest, length.max().item())
        self.sums += torch.stack([part.double().sum().cpu() for part in (
            length, sampling.outside(), weights, weights.square(), weights < 0,
            effective.unsqueeze(-1).nan_to_num(0.0).expand_as(weights))])
        flat = length.flatten()
        self.lengths.append(flat[::max(1, flat.numel() // self.kept)].float().cpu())

    def summary(self) -> dict[str, float]:
        """The figures of the layer.

        Offset lengths are in pixels of the layer's input (``offset_mean_image``: in those of the
        image), scaled as the layer scales them; percentiles are of about 100,000 evenly spaced
        samples per image. ``outside`` is the share of samples that lie beyond the input and
        contribute nothing, ``weight_negative`` the share of negative weights.
        ``effective_points`` is (sum of absolute weights)**2 / sum of squares, averaged: the
        number of points if all count alike, 1 if one decides, 0 where all weights are 0.
        """
        mean, outside, weight, square, negative, effective = (self.sums / self.samples).tolist()
        p50, p95 = (value.item() for value in torch.quantile(
            torch.cat(self.lengths)[:16_000_000], torch.tensor([0.5, 0.95])))
        return {'offset_mean': mean, 'offset_p50': p50, 'offset_p95': p95,
                'offset_max': self.longest, 'offset_mean_image': mean * self.stride,
                'outside': outside, 'weight_mean': weight,
                'weight_std': max(square - weight ** 2, 0.0) ** 0.5,
                'weight_negative': negative, 'effective_points': effective}


def collect(predictor: Predictor, images: Iterable[str]) -> dict[str, LayerStats]:
    """Statistics of every deformable layer of the backbone over some images."""
    stats: dict[str, LayerStats] = {}
    for path in images:
        image = predictor.read(path)
        with record_sampling(predictor.backbone) as samplings:
            predictor.backbone(image)
        for name, sampling in samplings.items():
            stride = stride_of(sampling.size, tuple(image.shape[-2:]))
            stats.setdefault(name, LayerStats(stride)).add(sampling)
    return stats


def format_table(rows: dict[str, dict[str, float]]) -> str:
    """The statistics as a table of text."""
    width = max(map(len, rows))
    lines = [' ' * width + ''.join(f'{title:>12}' for title in COLUMNS.values())]
    lines += [f'{name:<{width}}' + ''.join(f'{row[key]:>12.4f}' for key in COLUMNS)
              for name, row in rows.items()]
    return '\n'.join(lines)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    return cli.build_image_parser(
        'sampling_stats.py', 'Measure where the deformable layers of a network sample.',
        out_dir='analysis')


def analyse(args: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    predictor, images, _ = cli.open_images(args)
    out_dir = Path(args.out_dir)
    rows = {name: {'stride': stats.stride, 'points': stats.points, **stats.summary()}
            for name, stats in collect(predictor, images).items()}
    writing.write_text(out_dir / 'sampling_stats.json', json.dumps(rows, indent=2) + '\n')
    print(format_table(rows))
    print(f'sampling_stats.py: {len(rows)} layers, {len(images)} images; '
          f'results in {out_dir}')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(analyse, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
