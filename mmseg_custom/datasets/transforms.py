"""Reading of label maps that names the file where a value or the size is wrong.

The check before a run looks into all label maps of usual sets, but only into some of large ones
and of those on other storage; this holds for each one that is read.
"""
from __future__ import annotations

from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmseg.datasets import transforms
from mmseg.registry import TRANSFORMS

from mmdcn.data.checks import shorten
from mmdcn.errors import SampleError, UserError

# What mmseg writes for pixels that count for nothing, whatever `ignore_index` says.
IGNORED = 255


def label_table(reduce_zero_label: bool, label_map: dict[int, int] | None) -> np.ndarray:
    """What mmseg makes of each value of a label map.

    Args:
        reduce_zero_label: Ignore 0 and count the classes from 1.
        label_map: Class number for each class number of the files, applied after that.

    Returns:
        Of shape (256,), uint8.
    """
    table = np.arange(256, dtype=np.uint8)
    if reduce_zero_label:
        table = np.array([IGNORED, *range(254), IGNORED], np.uint8)
    mapped = table.copy()
    for old, new in (label_map or {}).items():
        mapped[table == old] = new
    return mapped


def strange_labels(values: Any, table: np.ndarray, num_classes: int, ignore_index: int,
                   ) -> list[float]:
    """Which of the values of a label map stand for no class and are not ignored.

    Args:
        values: Values of the file, in any order.
        table: As :func:`label_table` gives it.
        num_classes: Classes of the data set.
        ignore_index: Its value for pixels that count for nothing.
    """
    return sorted(value for value in values if value not in range(256) or (
        table[int(value)] >= num_classes and table[int(value)] != ignore_index))


def refuse_labels(path: str, strange: list[float], num_classes: int, ignore_index: int,
                  reduce_zero_label: bool) -> UserError:
    """The error for a label map with strange values."""
    remedy = 'correct metainfo.classes or the label maps'
    if any(value not in range(256) for value in strange):
        remedy = 'label maps are read as 8 bit: write them with values from 0 to 255'
    elif not reduce_zero_label and strange == [num_classes]:
        remedy += ', or set reduce_zero_label=True if the classes begin at 1 and 0 is none'
    first = int(reduce_zero_label)
    return UserError('label map', f'{path} holds the values {shorten(strange)}',
                     f'{first} to {num_classes - 1 + first} for {num_classes} classes'
                     f'{" with reduce_zero_label" * reduce_zero_label}, or {ignore_index} to '
                     'ignore', remedy)


class NameClasses(BaseTransform):
    """Puts into each sample what its label map may hold, for :class:`CheckedLoadAnnotations`.

    Args:
        num_classes: Classes of the data set.
        ignore_index: Its value for pixels that count for nothing.
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the key ``label_values``."""
        results['label_values'] = (self.num_classes, self.ignore_index)
        return results


@TRANSFORMS.register_module(name='LoadAnnotations', force=True)
class CheckedLoadAnnotations(transforms.LoadAnnotations):
    """mmseg's ``LoadAnnotations``, which refuses what no model can be trained on.

    Arguments and results are the same. Classes are compared in the data sets of a run
    (``CheckedRunner.prepare_data``), sizes wherever a picture was loaded before.
    """

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        """Fill ``gt_seg_map``, of shape (H, W) and uint8.

        Raises:
            SampleError: The file cannot be read, has several channels, another size than its
                picture or values that are no class; or ``reduce_zero_label`` is not the data
                set's.
        """
        try:
            results['gt_seg_map'] = self._read(results)
        except UserError as error:
            raise SampleError(*error.args) from error
        results['seg_fields'].append('gt_seg_map')

    def _read(self, results: dict[str, Any]) -> np.ndarray:
        """The class numbers of the pixels, of shape (H, W)."""
        path = results['seg_map_path']
        labels = self._decode(path)
        reduce_zero_label = compare_reduce_zero_label(
            self.reduce_zero_label, results['reduce_zero_label'], 'the data set')
        shape = results.get('ori_shape')
        if shape is not None and labels.shape != tuple(shape[:2]):
            raise UserError(
                'label map', f'{path} has {labels.shape[1]}x{labels.shape[0]} pixels, its picture '
                f'{results.get("img_path", "")} has {shape[1]}x{shape[0]}', 'the same size',
                'make them alike; if the sides are swapped, the picture has an EXIF orientation')
        table = label_table(reduce_zero_label, results.get('label_map'))
        if 'label_values' in results or labels.dtype != np.uint8:
            num_classes, ignore = results.get('label_values', (256, IGNORED))
            values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)) \
                if labels.dtype == np.uint8 else np.unique(labels)
            strange = strange_labels(values.tolist(), table, num_classes, ignore)
            if strange:
                raise refuse_labels(path, strange, num_classes, ignore, reduce_zero_label)
        return table[labels.astype(np.uint8)]

    def _decode(self, path: str) -> np.ndarray:
        """The values of a label map as stored, of shape (H, W)."""
        try:
            content = fileio.get(path, backend_args=self.backend_args)
            labels = mmcv.imfrombytes(content, flag='unchanged', backend=self.imdecode_backend)
        except Exception as error:  # as many kinds as there are decoders and kinds of storage
            raise UserError('label map', f'{path} cannot be read ({error})') from error
        if labels is not None and labels.ndim == 3 and labels.shape[2] == 1:
            labels = labels[..., 0]
        if labels is None or labels.ndim != 2:
            shape = None if labels is None else labels.shape
            raise UserError('label map', f'{path} is decoded to the shape {shape}',
                            'one channel holding class numbers')
        return labels.astype(np.uint8) if labels.dtype == bool else labels


def compare_reduce_zero_label(loader: bool | None, dataset: bool, where: str) -> bool:
    """What both say of ``reduce_zero_label``; the loader need not say anything.

    Raises:
        UserError: They disagree.
    """
    if loader is not None and loader != dataset:
        raise UserError('reduce_zero_label', f'got {loader} for LoadAnnotations and {dataset} for '
                        f'{where}', 'one value', 'set it for the data set alone')
    return dataset
