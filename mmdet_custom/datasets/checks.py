"""What the annotations of detection data sets are checked for."""
from __future__ import annotations

import json
import mmap
from typing import Any

from mmdet.datasets import BaseDetDataset

from mmdcn.data.checks import DataCheck, compare_classes, register_check


@register_check(BaseDetDataset)
class CocoCheck(DataCheck):
    """The class list must be the categories of the COCO file, in their order."""

    def check(self, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check`; other formats than COCO's pass."""
        classes = list(dataset.metainfo.get('classes') or [])
        ann_file = str(dataset.ann_file or '')
        if not classes or not ann_file.endswith('.json'):
            return
        categories = coco_categories(ann_file)
        if categories is not None:
            compare_classes(classes, categories, where, ann_file)


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
