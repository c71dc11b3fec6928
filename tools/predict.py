#!/usr/bin/env python
"""Predict images with a trained model of any task; writes pictures, JSON and features.

    python tools/predict.py CONFIG CHECKPOINT photo.jpg folder 'more/**/*.png' --out-dir predictions
    python tools/predict.py CONFIG CHECKPOINT SAMPLE_TOKEN
    python tools/predict.py CONFIG CHECKPOINT photo.jpg --features 'backbone.levels.*' neck
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmengine.registry import VISUALIZERS  # noqa: E402

from mmdcn import writing  # noqa: E402
from mmdcn.analysis import record_features  # noqa: E402
from mmdcn.apis import cli, drawing, inference  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = cli.build_image_parser('predict.py', 'Predict images.', out_dir='predictions')
    parser.add_argument('--score-thr', type=float, default=0.3,
                        help='least score of an object (detection)')
    parser.add_argument('--top', type=int, default=5, metavar='K',
                        help='number of classes named per image (classification)')
    parser.add_argument('--features', nargs='+', default=[], metavar='LAYER',
                        help="write outputs of these modules to IMAGE_features.npz; '*' stands for "
                             "one part of a name, '**' for several")
    parser.add_argument('--skip-bad-images', dest='skip_bad', action='store_true',
                        help='carry on without damaged images, and count them')
    return parser


def predict(args: argparse.Namespace) -> int:
    """Predict as the command line says; returns the exit code."""
    start = last = time.monotonic()
    if args.top < 1:
        raise UserError('top', f'got {args.top}', 'at least 1')
    predictor, images, skipped = cli.open_images(args, args.skip_bad)
    with inference.task_scope(predictor.cfg):
        visualizer = VISUALIZERS.build({
            **predictor.cfg.get('visualizer', {'type': 'Visualizer'}),
            'name': f'predict-{time.time()}', 'vis_backends': None})
        visualizer.dataset_meta = predictor.meta
        for number, (path, place) in enumerate(images.items(), 1):
            with (record_features(predictor.model, args.features) as features,
                  record_features(predictor.model, ['data_preprocessor']) as inputs):
                batch = predictor.load(path)
                sample = predictor.predict(batch)
            write_result(path, place, batch, sample, visualizer, args)
            if features:
                write_features(place, features, next(iter(inputs.values())))
            now = time.monotonic()
            if now - last > 5:
                left = (now - start) / number * (len(images) - number)
                print(f'{number}/{len(images)} images, {left:.0f} s left', flush=True)
                last = now
    print(f'predict.py: {len(images)} images in {time.monotonic() - start:.1f} s; '
          f'{skipped} images skipped; results in {args.out_dir}')
    return 0


def write_result(path: str, place: str, batch: dict[str, Any], sample: Any, visualizer: Any,
                 args: argparse.Namespace) -> None:
    """Write picture, JSON and, for segmentation, the label map of one image.

    Args:
        path: The image, or token of a sample of several pictures.
        place: Path of its results, without suffix.
        batch: What the network took.
        sample: Its prediction.
        visualizer: The task's visualizer.
        args: The command line.
    """
    classes = visualizer.dataset_meta.get('classes') or ()
    if hasattr(visualizer, 'draw_views'):
        picture = visualizer.draw_views(batch['inputs']['img'][0], sample, args.score_thr,
                                        with_truth=False)
        drawing.write_image(f'{place}.jpg', picture[..., ::-1])
    else:
        drawing.draw_sample(visualizer, drawing.read_image(path), sample, f'{place}.jpg',
                            score_thr=args.score_thr, with_truth=False, top=args.top)
    if 'pred_sem_seg' in sample:
        labels = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()
        depth = np.uint8 if labels.max() < 256 else np.uint16
        drawing.write_image(f'{place}_labels.png', labels.astype(depth))
    result = {'image': path, **drawing.describe_sample(sample, classes, args.score_thr, args.top)}
    writing.write_text(f'{place}.json', json.dumps(result, indent=2) + '\n')


def write_features(place: str, features: dict[str, torch.Tensor], inputs: torch.Tensor) -> None:
    """Write the features of one image, by layer, and the network's ``input_size`` (H, W)."""
    arrays = {name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
              for name, tensor in features.items()}
    with writing.whole_file(f'{place}_features.npz') as part:
        np.savez(part, input_size=np.array(inputs.shape[-2:]), **arrays)


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(predict, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
