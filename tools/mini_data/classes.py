"""Class names of the mini sets; configs state the same names as their ``metainfo``.

- coco: circle, digit_2, digit_4, digit_6, ring, square, star, triangle
  (category ids have gaps, as in the real COCO)
- imagenet: circle, cross, digit_2, digit_4, ring, square, star, triangle
  (folder names; index = alphabetical order, as ``CustomDataset`` and ``ImageNet`` count them)
- ade: background, circle, digit_2, digit_4, ring, square, star, triangle
  (label 0 on disk = void; ``reduce_zero_label=True`` makes background class 0)
- nuscenes: barrier, bicycle, bus, car, construction_vehicle, motorcycle, pedestrian,
  traffic_cone, trailer, truck
  (the ten of the detection task; published BEVFormers count them in this order)
"""
from __future__ import annotations

VERSION = 8
"""Raised by one whenever the written bytes change for an unchanged seed."""

SPLITS = ('train', 'val')

COCO_CATEGORY_IDS = {
    'circle': 1, 'digit_2': 2, 'digit_4': 4, 'digit_6': 5,
    'ring': 7, 'square': 8, 'star': 11, 'triangle': 13,
}

COCO_CLASSES = tuple(COCO_CATEGORY_IDS)

IMAGENET_CLASSES = (
    'circle', 'cross', 'digit_2', 'digit_4', 'ring', 'square', 'star', 'triangle',
)

ADE_CLASSES = (
    'background', 'circle', 'digit_2', 'digit_4', 'ring', 'square', 'star', 'triangle',
)

NUSCENES_CLASSES = (
    'barrier', 'bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle', 'pedestrian',
    'traffic_cone', 'trailer', 'truck',
)

CLASSES = {'coco': COCO_CLASSES, 'imagenet': IMAGENET_CLASSES, 'ade': ADE_CLASSES,
           'nuscenes': NUSCENES_CLASSES}

DEFAULT_SETS = ('coco', 'imagenet', 'ade')
"""What is written unless sets are named; nuscenes needs mmdet3d and the devkit."""

PALETTE = (
    (110, 110, 110), (230, 60, 60), (60, 140, 255), (250, 200, 40), (60, 200, 90),
    (200, 80, 230), (255, 130, 40), (40, 215, 215), (240, 120, 180), (150, 220, 60),
)
"""RGB per class index, for overviews and for the ``palette`` of a config."""
