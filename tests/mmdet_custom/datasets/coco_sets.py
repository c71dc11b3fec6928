"""A small data set in COCO's format, changed at will, with what a perfect detector would say."""
from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import METRICS, DefaultScope
from PIL import Image
from pycocotools import mask as rle

from mmdcn.data.checks import build_dataset, check_dataset

WIDTH, HEIGHT = 40, 30
CLASSES = ('box', 'disk', 'star')


def good_content() -> dict[str, Any]:
    """Three pictures with three objects each, one of each class."""
    images, annotations = [], []
    for number in (1, 2, 3):
        images.append(dict(id=number, file_name=f'{number}.jpg', width=WIDTH, height=HEIGHT))
        for kind in (1, 2, 3):
            x, y, w, h = 2 + 10 * (kind - 1), 3 * number, 8, 6 + kind
            annotations.append(dict(
                id=len(annotations) + 1, image_id=number, category_id=kind, iscrowd=0,
                bbox=[x, y, w, h], area=w * h,
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
    return dict(images=images, annotations=annotations,
                categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)])


class CocoSet:
    """A written set; reads it through the entrance of the tools.

    Args:
        folder: Where pictures and annotations are written.
        change: Changes the good content, and the pictures in ``folder / 'images'``.
        options: ``masks``, ``classes``, ``color_type``, ``test_mode`` of the config.
    """

    def __init__(self, folder: Path, change: Callable[[dict, Path], Any], **options: Any) -> None:
        self.folder, self.options = folder, options
        self.classes = options.get('classes', CLASSES)
        pictures = folder / 'images'
        pictures.mkdir(parents=True)
        for number in (1, 2, 3):
            save_picture(pictures / f'{number}.jpg')
        content = good_content()
        content = change(content, pictures) or content
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / 'annotations.json').write_bytes(data)

    def config(self) -> dict[str, Any]:
        masks = self.options.get('masks', True)
        return dict(
            type='CocoDataset', serialize_data=False, data_root=str(self.folder),
            ann_file='annotations.json', data_prefix=dict(img='images/'),
            metainfo=dict(classes=self.classes),
            test_mode=self.options.get('test_mode', False), pipeline=[
                dict(type='LoadImageFromFile',
                     color_type=self.options.get('color_type', 'color')),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=masks),
                dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape'))])

    def read(self) -> Any:
        """Build and check the data set as a run does."""
        with DefaultScope.overwrite_default_scope('mmdet'):
            dataset = build_dataset(self.config(), 'train_dataloader.dataset')
            check_dataset(dataset, 'train_dataloader.dataset', False, print)
        return dataset

    def objects(self, image: int) -> list[dict[str, Any]]:
        """What is to be seen in a picture of the good set, for the classes of this one."""
        return [entry for entry in good_content()['annotations'] if entry['image_id'] == image
                and CLASSES[entry['category_id'] - 1] in self.classes]

    def score(self, dataset: Any, **options: Any) -> dict[str, float]:
        """What COCO's metric says of predictions that are the truth of the good set."""
        masks = self.options.get('masks', True)
        with DefaultScope.overwrite_default_scope('mmdet'):
            metric = METRICS.build({
                'type': 'CocoMetric', 'ann_file': str(self.folder / 'annotations.json'),
                'metric': ['bbox', 'segm'] if masks else 'bbox', **options})
        metric.dataset_meta = dataset.metainfo
        samples = []
        for index in range(len(dataset)):
            number = dataset.get_data_info(index)['img_id']
            objects = self.objects(index + 1)
            boxes = np.array([entry['bbox'] for entry in objects], np.float32)
            boxes[:, 2:] += boxes[:, :2]
            predicted = dict(
                bboxes=torch.from_numpy(boxes), scores=torch.ones(len(objects)),
                labels=torch.tensor([self.classes.index(CLASSES[entry['category_id'] - 1])
                                     for entry in objects]))
            if masks:
                predicted['masks'] = [rle.merge(rle.frPyObjects(
                    copy.deepcopy(entry['segmentation']), HEIGHT, WIDTH)) for entry in objects]
            samples.append(dict(img_id=number, ori_shape=(HEIGHT, WIDTH),
                                pred_instances=predicted))
        metric.process({}, samples)
        return metric.evaluate(len(samples))


def save_picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT),
                 orientation: int | None = None) -> None:
    """Write a grey picture of a width and height as stored, with an EXIF orientation or none."""
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new('RGB', size, (90, 90, 90)).save(path, exif=exif)
