"""What the annotations of detection data sets are checked for, and heads against classes."""
from __future__ import annotations

import json
import mmap
from typing import Any

from mmdet.datasets import BaseDetDataset, CocoPanopticDataset
from mmengine.model import is_model_wrapper
from torch import nn

from mmdcn.data.checks import DataCheck, compare_classes, register_check
from mmdcn.errors import UserError
from mmdet_custom.datasets.picture_sizes import Sized, compare_sizes, loads_as_stored

# Parts of a detector whose `num_classes` are not those of the data set.
_OTHER_CLASSES = {'backbone', 'data_preprocessor', 'rpn_head', 'semantic_head'}


@register_check(BaseDetDataset)
class CocoCheck(DataCheck):
    """Sizes must be those of the pictures, heads must have the classes of the data set.

    What :class:`mmdet_custom.datasets.coco_api.MendedCOCO` reads is checked there for its classes;
    of other readers the class list must be the categories of the file, in their order.
    """

    def check(self, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check`; other formats than COCO's pass."""
        _check_sizes(dataset)
        classes = list(dataset.metainfo.get('classes') or [])
        ann_file = str(dataset.ann_file or '')
        if getattr(dataset, 'categories_checked', False) or not classes or \
                not ann_file.endswith('.json'):
            return
        categories = coco_categories(ann_file)
        if categories is not None:
            compare_classes(classes, categories, where, ann_file)

    def check_model(self, model: nn.Module, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check_model`.

        Heads that find what a text names, and panoptic ones, have other numbers and pass.
        """
        classes = dataset.metainfo.get('classes')
        if not classes or dataset.return_classes or isinstance(dataset, CocoPanopticDataset):
            return
        model = model.module if is_model_wrapper(model) else model
        for name, part in model.named_modules():
            count = getattr(part, 'num_classes', None)
            if name and not _OTHER_CLASSES & set(name.split('.')) and \
                    isinstance(count, int) and count != len(classes):
                raise UserError(f'model.{name}.num_classes', f'got {count}',
                                f'{len(classes)}, as many as {where}.metainfo.classes has',
                                'set it in every head, or metainfo=dict(classes=...) of the data '
                                'set, whichever is wrong')


def _check_sizes(dataset: Any) -> None:
    pictures = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        path, size = info.get('img_path'), (info.get('width'), info.get('height'))
        if isinstance(path, str) and None not in size:
            pictures.append(Sized(f'image id {info.get("img_id")!r}', path, size))
    compare_sizes(pictures, loads_as_stored(dataset), size_source(dataset))


def size_source(dataset: Any) -> str:
    """The file that gives the sizes of pictures; some formats have one beside the annotations."""
    return str(next(filter(None, (getattr(dataset, name, None) for name in (
        'extra_ann_file', 'meta_file', 'ann_file'))), ''))


def coco_categories(ann_file: str) -> list[str] | None:
    """Category names of a COCO file in its order, without parsing the whole file.

    Returns None where the file has no such list.
    """
    try:
        with open(ann_file, 'rb') as stream, \
                mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            position = data.rfind(b'"categories"')
            opening = data.find(b'[', position) if position >= 0 else -1
            if opening < 0:
                return None
            window = 1 << 16
            while True:
                text = data[opening:opening + window].decode('utf-8', errors='ignore')
                try:
                    entries, _ = json.JSONDecoder().raw_decode(text)
                    break
                except json.JSONDecodeError:
                    if opening + window >= len(data):
                        return None
                    window *= 8
    except (OSError, ValueError):
        return None
    if not all(isinstance(entry, dict) and 'name' in entry for entry in entries):
        return None
    return [entry['name'] for entry in entries]
