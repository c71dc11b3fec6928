"""What the annotations of segmentation data sets are checked for."""
from __future__ import annotations

import os
from typing import Any

import numpy as np
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmdcn.data.checks import DataCheck, register_check, shorten
from mmdcn.errors import UserError

# Enough to see every class of a usual set without opening it all.
_SAMPLED_LABEL_MAPS = 16


@register_check(BaseSegDataset)
class LabelMapCheck(DataCheck):
    """Some label maps are looked into for values that are no class."""

    def check(self, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check`."""
        num_classes = len(dataset.metainfo.get('classes') or [])
        if not num_classes:
            return
        count = len(dataset)
        picked = sorted({round(i * (count - 1) / (_SAMPLED_LABEL_MAPS - 1))
                         for i in range(_SAMPLED_LABEL_MAPS)}) if count else []
        ignore = getattr(dataset, 'ignore_index', 255)
        label_map = getattr(dataset, 'label_map', None) or {}
        for index in picked:
            path = dataset.get_data_info(index).get('seg_map_path')
            if not path or '://' in path or not os.path.exists(path):
                continue
            try:
                with Image.open(path) as image:
                    labels = np.asarray(image)
            except (OSError, SyntaxError, ValueError):
                continue  # check_files names it
            if labels.ndim != 2:
                raise UserError('label map', f'{path} of {where} has shape {labels.shape}',
                                'one channel holding class numbers')
            values = set(np.unique(labels).tolist())
            if dataset.reduce_zero_label:  # before label_map, as in mmseg's LoadAnnotations
                values = {ignore if value == 0 else value - 1 for value in values - {255}}
            values = {label_map.get(value, value) for value in values}
            strange = sorted(values - set(range(num_classes)) - {ignore})
            if strange:
                raise UserError(
                    'label map', f'{path} of {where} holds the class numbers {shorten(strange)}'
                    f'{" (after reduce_zero_label)" * dataset.reduce_zero_label}',
                    f'0 to {num_classes - 1} for {num_classes} classes or {ignore} to ignore',
                    'fix metainfo classes, reduce_zero_label or the label maps')
