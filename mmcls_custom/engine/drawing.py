"""Pictures and plain numbers from predictions of any task."""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer


def read_image(path: str) -> np.ndarray:
    """An image as RGB, shape (height, width, 3), uint8.

    Raises:
        ValueError: The file is no image.
    """
    image = cv2.imdecode(np.frombuffer(get(path), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f'image is not valid: {path} cannot be decoded')
    return image[..., ::-1].copy()


def draw_sample(visualizer: Visualizer, image: np.ndarray, sample: BaseDataElement,
                out_file: str, *, score_thr: float, with_truth: bool) -> None:
    """Draw one prediction into a file, on the right of the ground truth if that is wanted.

    Args:
        visualizer: The task's visualizer; its ``dataset_meta`` gives names and colours.
        image: (height, width, 3) RGB, uint8.
        sample: Prediction, with ground truth if it is to be drawn.
        out_file: Picture to write; its folder is made.
        score_thr: Objects below this score are not drawn.
        with_truth: Draw the ground truth, too.
    """
    os.makedirs(os.path.dirname(out_file) or '.', exist_ok=True)
    sample = sample.cpu()
    if hasattr(visualizer, 'visualize_cls'):
        # Captions need room, which small images do not have.
        small = min(image.shape[:2])
        visualizer.visualize_cls(image, sample, draw_gt=with_truth, out_file=out_file,
                                 resize=256 if small < 256 else None)
        return
    options = {'pred_score_thr': score_thr} if 'pred_instances' in sample else {}
    visualizer.add_datasample(Path(out_file).stem, image, sample, draw_gt=with_truth,
                              out_file=out_file, **options)


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """Draws every tested image with its prediction beside the ground truth.

    Args:
        out_dir: Folder of the pictures, ``NAME.jpg`` for each image, or
            ``CLASS_NAME.jpg`` in classification.
        score_thr: Objects below this score are not drawn.
    """

    def __init__(self, out_dir: str, score_thr: float = 0.3) -> None:
        self.out_dir = Path(out_dir)
        self.score_thr = score_thr

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                        outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Draw the outputs of one batch."""
        for sample in outputs or []:
            source = Path(sample.img_path)
            # Class folders often use the same file names again.
            name = f'{source.parent.name}_{source.stem}' if 'gt_label' in sample else source.stem
            draw_sample(runner.visualizer, read_image(str(source)), sample,
                        str(self.out_dir / f'{name}.jpg'), score_thr=self.score_thr,
                        with_truth=True)


def mask_to_rle(mask: np.ndarray) -> dict[str, Any]:
    """A binary mask (height, width) as COCO's compressed run lengths.

    The runs go column by column and begin with zeros. Each length from the fourth on is written as
    the difference to the one before the last, in groups of 5 bits, lowest first, one character
    each; a sixth bit says that more follow.
    """
    flat = np.asarray(mask, dtype=bool).ravel(order='F')
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    if flat.size and flat[0]:
        runs = [0, *runs]
    text = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            bits, value = value & 0x1f, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            text.append(chr(48 + bits + 0x20 * more))
    return {'size': list(mask.shape), 'counts': ''.join(text)}


def describe_sample(sample: BaseDataElement, classes: Sequence[str],
                    score_thr: float) -> dict[str, Any]:
    """A prediction as plain numbers and names, ready for JSON.

    Detection gives ``objects`` (box x1 y1 x2 y2 in pixels, label, name, score, mask as run
    lengths), segmentation ``class_shares`` (share of the pixels per class), classification
    ``top5``.

    Args:
        sample: Prediction of one image.
        classes: Class names in the order of the labels.
        score_thr: Objects below this score are left out.
    """
    sample = sample.cpu()
    if 'pred_instances' in sample:
        return {'objects': _describe_objects(sample.pred_instances, classes, score_thr)}
    if 'pred_sem_seg' in sample:
        labels = sample.pred_sem_seg.data.flatten()
        counts = torch.bincount(labels, minlength=len(classes))
        return {'class_shares': {_name(classes, i): count / labels.numel()
                                 for i, count in enumerate(counts.tolist()) if count}}
    scores, labels = sample.pred_score.float().topk(min(5, sample.pred_score.numel()))
    return {'top5': [{'label': label, 'name': _name(classes, label), 'score': score}
                     for label, score in zip(labels.tolist(), scores.tolist(), strict=True)]}


def _describe_objects(instances: Any, classes: Sequence[str],
                      score_thr: float) -> list[dict[str, Any]]:
    instances = instances[instances.scores >= score_thr]
    objects = []
    for i, (box, label, score) in enumerate(zip(
            instances.bboxes.tolist(), instances.labels.tolist(), instances.scores.tolist(),
            strict=True)):
        entry = {'box': box, 'label': label, 'name': _name(classes, label), 'score': score}
        if 'masks' in instances:
            entry['mask'] = mask_to_rle(np.asarray(instances.masks[i]))
        objects.append(entry)
    return objects


def _name(classes: Sequence[str], label: int) -> str:
    return classes[label] if label < len(classes) else str(label)
