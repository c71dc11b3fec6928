#!/usr/bin/env python
"""Predict images with a trained model of any task; writes pictures and JSON.

    python tools/predict.py CONFIG CHECKPOINT photo.jpg --out-dir predictions
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.dataset import Compose, pseudo_collate  # noqa: E402
from mmengine.registry import DATASETS, MODELS, VISUALIZERS, DefaultScope  # noqa: E402
from torch import nn  # noqa: E402

from mmcls_custom.checkpoints import load_state_dict, read_checkpoint  # noqa: E402
from mmcls_custom.engine import cli, config, drawing  # noqa: E402
from mmcls_custom.engine.data_check import image_problem  # noqa: E402
from mmcls_custom.engine.errors import UserError  # noqa: E402
from mmcls_custom.engine.runner import import_task_modules, readable_errors  # noqa: E402

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(prog='predict.py', description='Predict images.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('images', metavar='IMAGE|FOLDER', help='image, or folder of images')
    parser.add_argument('--out-dir', default='predictions', help='where the results are written')
    parser.add_argument('--score-thr', type=float, default=0.3,
                        help='least score of an object (detection)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='change keys of the config')
    parser.add_argument('--skip-bad-images', action='store_true',
                        help='carry on without damaged images, and count them')
    return parser


def find_images(source: str, skip_bad: bool) -> tuple[list[Path], int]:
    """Images of a file or folder, and the number of damaged ones left out.

    Raises:
        UserError: There is none, or one is damaged and ``skip_bad`` is off.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise UserError(f'image is not valid: got {source}, expected an image or a folder with '
                        f'images ({", ".join(sorted(SUFFIXES))})')
    problems = {image: problem for image in found if (problem := image_problem(str(image)))}
    if problems and (not skip_bad or len(problems) == len(found)):
        lines = [f'  {image}: {problem}' for image, problem in list(problems.items())[:5]]
        remedy = 'mend them, or carry on without them: --skip-bad-images'
        raise UserError('\n'.join([f'{len(problems)} of {len(found)} images are damaged; {remedy}',
                                   *lines]))
    return [image for image in found if image not in problems], len(problems)


def build_model(cfg: Config, checkpoint_path: str, device: str) -> tuple[nn.Module, dict[str, Any]]:
    """The trained model in evaluation mode, and what it knows about its classes."""
    checkpoint = read_checkpoint(checkpoint_path)
    model = MODELS.build(cfg.model)
    load_state_dict(model, checkpoint['state_dict'], source=checkpoint_path)
    dataset = config.innermost_dataset(cfg.test_dataloader.dataset)
    meta = dict(getattr(DATASETS.get(dataset.type), 'METAINFO', {}))
    meta.update(dataset.get('metainfo') or {})
    meta.update(checkpoint.get('meta', {}).get('dataset_meta') or {})
    return model.to(device).eval(), meta


def build_pipeline(cfg: Config) -> Compose:
    """The test pipeline without the steps that read annotations."""
    steps = config.innermost_dataset(cfg.test_dataloader.dataset).pipeline
    return Compose([step for step in steps
                    if not ('Load' in step['type'] and 'Annotation' in step['type'])])


def predict(args: argparse.Namespace) -> int:
    """Predict as the command line says; returns the exit code."""
    start = last = time.monotonic()
    cfg = config.load_config(args.config, args.cfg_options)
    config.require(cfg, 'test_dataloader')
    config.check_file(args.checkpoint, 'checkpoint')
    config.check_writable(args.out_dir, '--out-dir')
    images, skipped = find_images(args.images, args.skip_bad_images)
    scope = cfg.get('default_scope', 'mmengine')
    import_task_modules(scope)
    with readable_errors(cfg), DefaultScope.overwrite_default_scope(scope):
        model, meta = build_model(cfg, args.checkpoint, args.device)
        pipeline = build_pipeline(cfg)
        visualizer = VISUALIZERS.build({**cfg.get('visualizer', {'type': 'Visualizer'}),
                                        'name': f'predict-{time.time()}', 'vis_backends': None})
        visualizer.dataset_meta = meta
        for number, path in enumerate(images, 1):
            data = pipeline({'img_path': str(path), 'img_id': number})
            with torch.no_grad():
                sample = model.test_step(pseudo_collate([data]))[0]
            write_result(path, sample, visualizer, args)
            now = time.monotonic()
            if now - last > 5:
                left = (now - start) / number * (len(images) - number)
                print(f'{number}/{len(images)} images, {left:.0f} s left', flush=True)
                last = now
    print(f'predict.py: {len(images)} images in {time.monotonic() - start:.1f} s; '
          f'{skipped} images skipped; results in {args.out_dir}')
    return 0


def write_result(path: Path, sample: Any, visualizer: Any, args: argparse.Namespace) -> None:
    """Write picture, JSON and, for segmentation, the label map of one image."""
    out = Path(args.out_dir)
    out.mkdir(parents=True, exist_ok=True)
    classes = visualizer.dataset_meta.get('classes') or ()
    drawing.draw_sample(visualizer, drawing.read_image(str(path)), sample,
                        str(out / f'{path.stem}.jpg'), score_thr=args.score_thr, with_truth=False)
    if 'pred_sem_seg' in sample:
        labels = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()
        depth = np.uint8 if labels.max() < 256 else np.uint16
        cv2.imwrite(str(out / f'{path.stem}_labels.png'), labels.astype(depth))
    result = {'image': str(path), **drawing.describe_sample(sample, classes, args.score_thr)}
    (out / f'{path.stem}.json').write_text(json.dumps(result, indent=2) + '\n')


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(predict, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
