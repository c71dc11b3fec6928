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

from mmdcn.apis.results import place_results
from mmdcn.writing import whole_file


def read_image(path: str) -> np.ndarray:
    """An image as RGB, shape (height, width, 3), uint8.

    Raises:
        ValueError: The file is no image.
    """
    image = cv2.imdecode(np.frombuffer(get(path), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f'image is not valid: {path} cannot be decoded')
    return image[..., ::-1].copy()


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an image, whole or not at all.

    Args:
        path: File to write; its suffix decides the format.
        image: (height, width) or (height, width, 3) BGR.

    Raises:
        OSError: It cannot be written.
    """
    with whole_file(path) as part:
        part.write_bytes(cv2.imencode(part.suffix, image)[1].tobytes())


def draw_sample(visualizer: Visualizer, image: np.ndarray, sample: BaseDataElement,
                out_file: str, *, score_thr: float, with_truth: bool, top: int = 1) -> None:
    """Draw one prediction into a file, on the right of the ground truth if that is wanted.

    Args:
        visualizer: The task's visualizer; its ``dataset_meta`` gives names and colours.
        image: (height, width, 3) RGB, uint8.
        sample: Prediction, with ground truth if it is to be drawn.
        out_file: Picture to write; its folder is made.
        score_thr: Objects below this score are not drawn.
        with_truth: Draw the ground truth, too.
        top: Number of classes in the caption of a classified image.
    """
    sample = sample.cpu()
    with whole_file(out_file) as part:
        if hasattr(visualizer, 'visualize_cls'):
            # Captions need room, which small images do not have.
            small = min(image.shape[:2])
            if top > 1:
                sample.set_pred_label(_top_classes(sample, top)[1])
            visualizer.visualize_cls(image, sample, draw_gt=with_truth, out_file=str(part),
                                     resize=256 if small < 256 else None)
            return
        options = {'pred_score_thr': score_thr} if 'pred_instances' in sample else {}
        visualizer.add_datasample(Path(out_file).stem, image, sample, draw_gt=with_truth,
                                  out_file=str(part), **options)


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """Draws every tested image with its prediction beside the ground truth.

    Args:
        out_dir: Folder of the pictures: ``NAME.jpg`` for each image, in the folders that the
            images have below the one that all share.
        score_thr: Objects below this score are not drawn.
    """

    def __init__(self, out_dir: str, score_thr: float = 0.3) -> None:
        self.out_dir = out_dir
        self.score_thr = score_thr
        self._places: dict[str, str] = {}

    def before_run(self, runner: Runner) -> None:
        """Choose the names of all pictures before the first is drawn.

        Raises:
            UserError: The pictures would lie beside the images.
        """
        dataset = runner.test_dataloader.dataset
        paths = dict.fromkeys(str(dataset.get_data_info(i)['img_path'])
                              for i in range(len(dataset)))
        common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
        self._places = place_results(dict.fromkeys(paths, common), self.out_dir, 'show_dir')

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                        outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Draw the outputs of one batch."""
        for sample in outputs or []:
            path = str(sample.img_path)
            draw_sample(runner.visualizer, read_image(path), sample, f'{self._places[path]}.jpg',
                        score_thr=self.score_thr, with_truth=True)



def mask_to_rle(mask: np.ndarray) -> dict[str, Any]:
    """A binary mask (height, width) as COCO's compressed run lengths, ready for JSON."""
    from pycocotools import mask as coco_mask  # comes with mmdet; only detection has masks
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {'size': list(mask.shape), 'counts': rle['counts'].decode()}


def describe_sample(sample: BaseDataElement, classes: Sequence[str], score_thr: float,
                    top: int = 5) -> dict[str, Any]:
    """A prediction as plain numbers and names, ready for JSON.

    Detection gives ``objects`` (box x1 y1 x2 y2 in pixels, label, name, score, mask as run
    lengths; in 3-D instead of a box ``center``, ``size`` along, across and up in m, ``yaw`` in rad
    and ``velocity`` in m/s, all in the LiDAR frame), segmentation ``class_shares`` (share of the
    pixels per class), classification ``top5`` (label, name, score), or ``topK`` for another K.

    Args:
        sample: Prediction of one image.
        classes: Class names in the order of the labels.
        score_thr: Objects below this score are skipped.
        top: Number of classes named in classification.
    """
    sample = sample.cpu()
    if 'pred_instances_3d' in sample:
        return {'objects': _describe_boxes(sample.pred_instances_3d, classes, score_thr)}
    if 'pred_instances' in sample:
        return {'objects': _describe_objects(sample.pred_instances, classes, score_thr)}
    if 'pred_sem_seg' in sample:
        labels = sample.pred_sem_seg.data.flatten()
        counts = torch.bincount(labels, minlength=len(classes))
        return {'class_shares': {_name(classes, i): count / labels.numel()
                                 for i, count in enumerate(counts.tolist()) if count}}
    scores, labels = _top_classes(sample, top)
    return {f'top{top}': [{'label': label, 'name': _name(classes, label), 'score': score}
                           for label, score in zip(labels.tolist(), scores.tolist(), strict=True)]}


def _top_classes(sample: BaseDataElement, top: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and labels of the classes with the highest scores, the best first."""
    return sample.pred_score.float().topk(min(top, sample.pred_score.numel()))


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


def _describe_boxes(instances: Any, classes: Sequence[str],
                    score_thr: float) -> list[dict[str, Any]]:
    instances = instances[instances.scores_3d >= score_thr]
    boxes = instances.bboxes_3d
    return [{'center': center, 'size': row[3:6], 'yaw': row[6], 'velocity': row[7:9],
             'label': label, 'name': _name(classes, label), 'score': score}
            for center, row, label, score in zip(
                boxes.gravity_center.tolist(), boxes.tensor.tolist(), instances.labels_3d.tolist(),
                instances.scores_3d.tolist(), strict=True)]


def _name(classes: Sequence[str], label: int) -> str:
    return classes[label] if label < len(classes) else str(label)
