#!/usr/bin/env python
"""Draw the effective receptive field of each stage of a network.

    python tools/analysis/effective_receptive_field.py CONFIG CHECKPOINT photos --size 512 512
    python tools/analysis/effective_receptive_field.py CONFIG none --noise 20

How much each pixel of the input counts for the feature in the middle of a stage: the absolute
gradient of the sum of its positive channels, averaged over images (Luo et al., NeurIPS 2016,
arXiv:1701.04128; drawn and measured as by Ding et al., CVPR 2022, arXiv:2203.06717).
"""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mmcls_custom.backbones import InternImage  # noqa: E402
from mmdcn import writing  # noqa: E402
from mmdcn.analysis import record_features  # noqa: E402
from mmdcn.analysis.sampling import first_center, stride_of  # noqa: E402
from mmdcn.apis import cli  # noqa: E402
from mmdcn.apis.inference import Predictor  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402

matplotlib.use('Agg')  # pictures are written, never shown: no display is needed

SHARES = (0.2, 0.3, 0.5, 0.99)


@dataclass
class Field:
    """Effective receptive field of one stage.

    Attributes:
        name: The stage, for titles and file entries.
        stride: Image pixels per pixel of the stage.
        center: (x, y) of the feature looked at, in image pixels.
        map: (H, W) contributions, averaged over the images; they sum up to 1.
    """

    name: str
    stride: int
    center: tuple[float, float]
    map: np.ndarray


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = cli.build_image_parser(
        'effective_receptive_field.py', 'Draw the effective receptive field of each stage.',
        out_dir='analysis', images='*')
    parser.add_argument('--noise', type=int, default=0, metavar='N',
                        help='average over N images of normal noise instead of photographs')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'),
                        help='resize what the network sees (default: as its test pipeline has '
                             'it; 224 224 for noise)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the noise')
    return parser


def receptive_fields(backbone: nn.Module, inputs: Iterable[Tensor]) -> list[Field]:
    """Effective receptive fields of the backbone's stages, averaged over images of one size.

    Args:
        backbone: Has ``stages`` that give feature maps (N, C, H, W), or gives one or several
            itself.
        inputs: Images (1, 3, H, W), normalised.

    Raises:
        UserError: The images differ in size, or the backbone gives no feature map.
    """
    fields: list[Field] = []
    size: tuple[int, int] | None = None
    for number, image in enumerate(inputs):
        if size not in (None, tuple(image.shape[-2:])):
            raise UserError('image size', f'got {tuple(image.shape[-2:])} after {size}',
                            'one size, to average over', 'give one with --size H W')
        size = tuple(image.shape[-2:])
        image = image.detach().requires_grad_()
        for i, out in enumerate(_feature_maps(backbone, image)):
            height, width = out.shape[-2:]
            if number == 0:
                stride = stride_of((height, width), size)
                first = first_center(backbone, stride)
                center = (first + width // 2 * stride, first + height // 2 * stride)
                fields.append(Field(f'stage {i + 1}', stride, center, np.zeros(size)))
            middle = F.relu(out[0, :, height // 2, width // 2]).sum()
            gradient, = torch.autograd.grad(middle, image, retain_graph=True)
            fields[i].map += gradient.abs().sum((0, 1)).double().cpu().numpy()
    for field in fields:
        if not field.map.sum() > 0:
            raise UserError('model', f'the input does not reach the middle of {field.name}',
                            'gradients', 'use a trained checkpoint')
        field.map /= field.map.sum()
    return fields


def _feature_maps(backbone: nn.Module, image: Tensor) -> list[Tensor]:
    stages = ['stages.*'] if isinstance(getattr(backbone, 'stages', None), nn.ModuleList) else []
    with record_features(backbone, stages, grad=True) as inside:
        outputs = backbone(image)
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    # Classifiers put out the last stage only, ConvNeXt's even pooled.
    for candidates in (inside.values(), outputs):
        maps = [out for out in candidates if isinstance(out, Tensor) and out.ndim == 4]
        if maps:
            return maps
    raise UserError('model', f'{type(backbone).__name__} gives no feature map', '(N, C, H, W)',
                    'let it return maps instead of tokens')


def side_of_share(field: Field, share: float) -> float:
    """Side of the least square around the center that holds a share of the contributions.

    Relative to the image: the root of the square's share of the image's area. The square ends
    where the image does.
    """
    height, width = field.map.shape
    rows = np.abs(np.arange(height) - field.center[1])[:, None]
    columns = np.abs(np.arange(width) - field.center[0])[None, :]
    distance = np.maximum(rows, columns).ravel()
    order = np.argsort(distance, kind='stable')
    reached = np.searchsorted(np.cumsum(field.map.ravel()[order]), share - 1e-9)
    radius = distance[order[min(reached, order.size - 1)]]
    return float(np.sqrt((distance <= radius).mean()))


def draw(fields: list[Field], path: Path) -> None:
    """Draw the fields side by side, each from its highest contribution down to 1/10000 of it."""
    from matplotlib import pyplot as plt
    from matplotlib.colors import LogNorm
    height, width = fields[0].map.shape
    figure, axes = plt.subplots(
        1, len(fields), figsize=(3 * len(fields) + 0.9, 3 * height / width + 0.7),
        squeeze=False, layout='constrained')
    for axis, field in zip(axes[0], fields, strict=True):
        shown = axis.imshow(np.maximum(field.map / field.map.max(), 1e-4), cmap='inferno',
                            norm=LogNorm(1e-4, 1), interpolation='nearest')
        axis.set_title(f'{field.name} (stride {field.stride})', fontsize=10)
        sides = ', '.join(f'{100 * share:.0f} %: {side_of_share(field, share):.2f}'
                          for share in SHARES)
        axis.set_xlabel(sides, fontsize=7)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(shown, ax=axes[0].tolist(), label='contribution / highest')
    with writing.whole_file(path) as part:
        figure.savefig(part, dpi=200)
    plt.close(figure)


def _inputs(predictor: Predictor, images: Iterable[str],
            args: argparse.Namespace) -> Iterator[Tensor]:
    if args.noise:
        generator = torch.Generator().manual_seed(args.seed)
        height, width = args.size or (224, 224)
        for _ in range(args.noise):
            yield torch.randn(1, 3, height, width, generator=generator).to(args.device)
    for path in images:
        image = predictor.read(path)
        yield F.interpolate(image, args.size, mode='bilinear', antialias=True) \
            if args.size else image


def analyse(args: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    if (args.noise > 0) == bool(args.images):
        raise UserError('noise', f'got {args.noise} and {len(args.images)} images',
                        'either images or --noise N')
    if args.size and min(args.size) < 32:
        raise UserError('size', f'got {args.size}', 'at least 32 32')
    predictor, images, _ = cli.open_images(args)
    out_dir = Path(args.out_dir)
    backbone = predictor.backbone
    if isinstance(backbone, InternImage):
        backbone.out_indices = (0, 1, 2, 3)  # classifiers ask for the last stage only
    fields = receptive_fields(backbone, _inputs(predictor, images, args))
    name = out_dir / 'effective_receptive_field'
    draw(fields, name.with_suffix('.png'))
    arrays: dict[str, Any] = {field.name.replace(' ', ''): field.map for field in fields}
    with writing.whole_file(name.with_suffix('.npz')) as part:
        np.savez_compressed(part, **arrays)
    report = [{'stage': field.name, 'stride': field.stride, 'center': field.center,
               'sides': {str(share): side_of_share(field, share) for share in SHARES}}
              for field in fields]
    writing.write_text(name.with_suffix('.json'), json.dumps(report, indent=2) + '\n')
    for field in fields:
        sides = ', '.join(f'{share:.0%} within {side_of_share(field, share):.3f}'
                          for share in SHARES)
        print(f'{field.name}, stride {field.stride}: {sides} of the image side')
    print(f'effective_receptive_field.py: {args.noise or len(images)} images; '
          f'results in {out_dir}')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(analyse, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
