"""Batches of random images for the model of any config: the data of tools/benchmark.py.

No data set has to exist; only what a model sees is made up. Annotations pass through the
``LoadAnnotations`` and ``Pack...Inputs`` of the config's own pipeline, so that a model gets what
its training gives it.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import TRANSFORMS

from mmdcn.errors import UserError

OBJECTS = 7  # in an image: COCO's mean is 7.3
DETECTION_SIZE = (800, 1280)  # of the published counts (docs/fidelity.md)
LEAST_SIDE = 32  # the largest stride of the backbones


def find_all(node: Any, key: str) -> Iterator[Any]:
    """Every value but None under a key of a nested config, outermost first."""
    if isinstance(node, dict):
        if node.get(key) is not None:
            yield node[key]
        children = list(node.values())
    else:
        children = list(node) if isinstance(node, list | tuple) else []
    for child in children:
        yield from find_all(child, key)


def steps_of(loader: Any) -> list[dict[str, Any]]:
    """All steps of the pipelines of a data loader, also of data sets within wrappers."""
    return [step for pipeline in find_all(loader, 'pipeline') for step in pipeline]


def kind_of(step: dict[str, Any]) -> str:
    """A step's type without scope."""
    return str(step.get('type')).rpartition('.')[2]


def default_size(cfg: Config) -> tuple[int, int]:
    """Height and width of the images of a config.

    Classification: what the test pipeline crops, or else resizes to. Segmentation: the crop of the
    training. 3-D detection: what the test pipeline makes of a camera's picture. Detection:
    800 x 1280, the size of the published counts, where the test pipeline resizes to (1333, 800);
    for another scale a picture of the same shape (8:5), resized likewise.
    """
    scope, test = cfg.get('default_scope'), steps_of(cfg.get('test_dataloader'))
    if scope == 'mmseg':
        crops = [*find_all(cfg.model.get('data_preprocessor'), 'size'),
                 *find_all(steps_of(cfg.get('train_dataloader')), 'crop_size'),
                 *find_all(test, 'scale')]
        return _pair(crops[0]) if crops else (512, 512)
    if scope == 'mmdet3d':
        left, upper, right, lower = next(find_all(test, 'crop'))
        height = next(find_all(test, 'heights'))[0]
        return height, round((right - left) * height / (lower - upper))
    scales = [*find_all(test, 'crop_size'), *find_all(test, 'scale')]
    if scope != 'mmdet':
        return _pair(scales[0]) if scales else (224, 224)
    if not scales:
        return DETECTION_SIZE
    short, long = sorted(_pair(scales[0]))
    return short, min(long, short * DETECTION_SIZE[1] // DETECTION_SIZE[0])


def _pair(size: Any) -> tuple[int, int]:
    """A size as (height, width) where a number stands for both."""
    return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) else (size, size)


def make_batch(cfg: Config, train: bool, size: tuple[int, int], batch: int,
               ) -> dict[str, Any]:
    """A batch as a data loader of the config would give it, the same in each call.

    Call it within the scope of the config's task. Images are noise. Classification: a random
    class; detection: :data:`OBJECTS` ellipses with boxes and polygons, a twelfth to a third of the
    image wide and high; segmentation: 4 x 4 rectangles of random classes; 3-D: the plug-in's
    ``SyntheticViews``.

    Args:
        cfg: The config.
        train: Take the pipeline of the training, with annotations; else that of the test, without.
        size: Height and width of the images.
        batch: Number of images.

    Raises:
        UserError: The pipeline does not end in a ``Pack...Inputs``.
    """
    name = 'train_dataloader' if train else 'test_dataloader'
    steps = steps_of(cfg[name])
    packs = [step for step in steps if kind_of(step).startswith('Pack')]
    if not packs:
        raise UserError('config', f'the pipeline of {name} has no step that packs', 'PackInputs, '
                        'PackDetInputs or PackSegInputs', 'this tool needs it')
    # Label maps of segmentation are read from files, so they go into the sample directly.
    loads = [step for step in steps if 'Load' in kind_of(step) and 'Annotation' in kind_of(step)]
    keep = loads[:1] if train and cfg.get('default_scope') == 'mmdet' else []
    transforms = [TRANSFORMS.build(dict(step)) for step in (*keep, packs[-1])]
    counts = [count for count in find_all(cfg.model, 'num_classes') if isinstance(count, int)]
    rng = np.random.default_rng(0)
    samples = []
    classes = min(counts, default=1)
    in_space = cfg.get('default_scope') == 'mmdet3d'
    if in_space:
        transforms.insert(0, TRANSFORMS.build(dict(
            type='SyntheticViews', size=size, frames=cfg.model.get('frames', (0, )),
            num_classes=classes if train else None)))
    for number in range(batch):
        sample = dict(sample_idx=number, img_id=number)
        if not in_space:
            sample |= _sample(rng, size) | (_annotations(rng, size, classes) if train else {})
        for transform in transforms:
            sample = transform(sample)
        samples.append(sample)
    return pseudo_collate(samples)


def _sample(rng: np.random.Generator, size: tuple[int, int]) -> dict[str, Any]:
    """An image and what loading and resizing would have noted of it."""
    return dict(
        img=rng.integers(0, 256, (*size, 3), dtype=np.uint8), img_path='', img_shape=size,
        ori_shape=size, pad_shape=size, height=size[0], width=size[1], scale_factor=(1.0, 1.0),
        flip=False, flip_direction=None, homography_matrix=np.eye(3, dtype=np.float32))


def _annotations(rng: np.random.Generator, size: tuple[int, int], classes: int) -> dict[str, Any]:
    """Annotations of all tasks; each packing step takes its own."""
    rows, columns = (np.arange(length) * 4 // length for length in size)
    labels = rng.integers(0, classes, (4, 4), dtype=np.uint8 if classes < 256 else np.int64)
    return dict(gt_label=int(rng.integers(classes)), gt_seg_map=labels[rows][:, columns],
                seg_fields=['gt_seg_map'],
                instances=[_instance(rng, size, classes) for _ in range(OBJECTS)])


def _instance(rng: np.random.Generator, size: tuple[int, int], classes: int) -> dict[str, Any]:
    """An ellipse as an object of COCO's format in mmdet's words."""
    height, width = size
    half = np.array([width, height]) * rng.uniform(1 / 24, 1 / 6, 2)
    centre = rng.uniform(half, np.array([width, height]) - half)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    points = centre + half * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return dict(bbox=[*(centre - half), *(centre + half)], ignore_flag=0,
                bbox_label=int(rng.integers(classes)), mask=[points.flatten().tolist()])
