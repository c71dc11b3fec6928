"""The main job end to end: train Mask R-CNN with FlashInternImage-pico, evaluate it, draw it.

``make quickstart`` calls this after making the environment and the mini data. It runs the same
``tools/train.py``, ``tools/test.py`` and ``tools/predict.py`` as any other training, shows their
output, writes one picture of predictions beside the ground truth, and ends in one line of figures.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle_codec

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mmdcn.apis import cli  # noqa: E402
from mmdcn.apis.drawing import write_image  # noqa: E402

CONFIG = 'configs/mini/mask-rcnn_flash-internimage-pico_fpn_1xb4-2k_mini-coco-160x128.py'
ZOOM = 3
COLOURS = ((60, 60, 230), (255, 140, 60), (40, 200, 250), (90, 200, 60), (230, 80, 200),
           (40, 130, 255), (215, 215, 40), (180, 120, 240))  # BGR, by class


def run(*command: str) -> None:
    """Run one of the tools with its output on the screen; end with its exit code if it fails."""
    print(f'$ python {" ".join(command)}', flush=True)
    code = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)


def pick_images(annotations: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Val images with objects, spread over the set."""
    shown = {entry['image_id'] for entry in annotations['annotations']}
    images = [image for image in annotations['images'] if image['id'] in shown]
    return images[::max(1, len(images) // count)][:count]


def to_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Polygons or COCO's compressed run lengths -> boolean mask (height, width)."""
    if isinstance(segmentation, list):
        segmentation = rle_codec.merge(rle_codec.frPyObjects(segmentation, height, width))
    return rle_codec.decode(segmentation).astype(bool)


def draw(image: np.ndarray, objects: list[dict[str, Any]]) -> np.ndarray:
    """Draw masks, boxes and captions on an image (height, width, 3), BGR, enlarged."""
    canvas = cv2.resize(image, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC)
    for item in objects:
        colour = COLOURS[item['label'] % len(COLOURS)]
        mask = cv2.resize(item['mask'].astype(np.uint8), canvas.shape[1::-1],
                          interpolation=cv2.INTER_LINEAR)
        outline, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        canvas[mask > 0] = (0.55 * canvas[mask > 0] + 0.45 * np.array(colour)).astype(np.uint8)
        cv2.drawContours(canvas, outline, -1, colour, 2)
    for item in objects:
        colour = COLOURS[item['label'] % len(COLOURS)]
        x1, y1, x2, y2 = (round(ZOOM * value) for value in item['box'])
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 1)
        (width, height), _ = cv2.getTextSize(item['caption'], cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
        left = max(0, min(x1, canvas.shape[1] - width - 4))
        top = max(0, y1 - height - 6)
        cv2.rectangle(canvas, (left, top), (left + width + 4, top + height + 6), colour, -1)
        cv2.putText(canvas, item['caption'], (left + 2, top + height + 2),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas


def truth_of(annotations: dict[str, Any], image: dict[str, Any]) -> list[dict[str, Any]]:
    """Ground truth of one image, ready to draw, without crowds, which COCO does not score."""
    names = {category['id']: (label, category['name'])
             for label, category in enumerate(annotations['categories'])}
    objects = []
    for entry in annotations['annotations']:
        if entry['image_id'] == image['id'] and not entry['iscrowd']:
            x, y, width, height = entry['bbox']
            label, name = names[entry['category_id']]
            mask = to_mask(entry['segmentation'], image['height'], image['width'])
            objects.append(dict(box=(x, y, x + width, y + height), label=label, caption=name,
                                mask=mask))
    return objects


def predictions_of(result: dict[str, Any], image: dict[str, Any]) -> list[dict[str, Any]]:
    """Predictions of ``tools/predict.py`` for one image, ready to draw."""
    return [dict(box=item['box'], label=item['label'],
                 caption=f'{item["name"]} {item["score"]:.2f}',
                 mask=to_mask(item['mask'], image['height'], image['width']))
            for item in result['objects']]


def montage(pairs: list[tuple[np.ndarray, np.ndarray]], columns: int = 2) -> np.ndarray:
    """One picture of (ground truth, prediction) pairs under a headline; images (H, W, 3), BGR."""
    height = max(left.shape[0] for left, _ in pairs)
    width = max(left.shape[1] for left, _ in pairs)
    gap, head = 6, 26
    sheet = np.full((head + -(-len(pairs) // columns) * (height + gap),
                     columns * (2 * width + 3 * gap), 3), 255, np.uint8)
    for column in range(columns):
        for half, title in enumerate(('ground truth', 'prediction')):
            left = column * (2 * width + 3 * gap) + half * (width + gap)
            cv2.putText(sheet, title, (left + 4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0),
                        1, cv2.LINE_AA)
    for number, pair in enumerate(pairs):
        row, column = divmod(number, columns)
        for half, image in enumerate(pair):
            top = head + row * (height + gap)
            left = column * (2 * width + 3 * gap) + half * (width + gap)
            sheet[top:top + image.shape[0], left:left + image.shape[1]] = image
    return sheet


def write_picture(data_root: Path, checkpoint: Path, work_dir: Path, count: int = 8) -> Path:
    """Predict some val images with ``tools/predict.py`` and draw them beside their ground truth."""
    annotations = json.loads((data_root / 'annotations/instances_val2017.json').read_text())
    chosen = pick_images(annotations, count)
    images, out = data_root / 'val2017', work_dir / 'predictions'
    run('tools/predict.py', CONFIG, str(checkpoint),
        *(str(images / image['file_name']) for image in chosen), '--out-dir', str(out),
        '--score-thr', '0.5')
    pairs = []
    for image in chosen:
        pixels = cv2.imread(str(images / image['file_name']))
        result = json.loads((out / f'{Path(image["file_name"]).stem}.json').read_text())
        pairs.append((draw(pixels, truth_of(annotations, image)),
                      draw(pixels, predictions_of(result, image))))
    path = work_dir / 'quickstart.png'
    write_image(path, montage(pairs))
    return path


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(prog='quickstart.py', description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/quickstart'))
    parser.add_argument('--cfg-options', nargs='*', default=[], metavar='KEY=VALUE',
                        help='passed on to train.py, for example train_cfg.max_iters=100')
    return parser


def quickstart(args: argparse.Namespace) -> int:
    """Train, evaluate and draw; returns the exit code."""
    work_dir = ROOT / args.work_dir
    options = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    run('tools/train.py', CONFIG, '--work-dir', str(work_dir), '--seed', '0', *options)
    checkpoint = Path((work_dir / 'last_checkpoint').read_text().strip())
    metrics_file = work_dir / 'metrics.json'
    run('tools/test.py', CONFIG, str(checkpoint), '--work-dir', str(work_dir / 'test'),
        '--metrics', str(metrics_file))
    picture = write_picture(ROOT / 'data/mini/coco', checkpoint, work_dir)
    metrics = json.loads(metrics_file.read_text())
    print(f'checkpoint: {checkpoint}')
    print(f'picture: {picture}')
    print(f'quickstart: bbox_mAP_50={metrics["coco/bbox_mAP_50"]:.2f} '
          f'segm_mAP_50={metrics["coco/segm_mAP_50"]:.2f}')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or the exit code of the tool that failed."""
    return cli.run_tool(quickstart, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
