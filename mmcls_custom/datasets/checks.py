"""What the annotations of classification data sets are checked for, and heads against classes."""
from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

from mmengine.fileio import list_from_file
from mmengine.model import is_model_wrapper
from mmpretrain.datasets import BaseDataset, CustomDataset
from mmpretrain.models.classifiers import BaseClassifier
from torch import nn

from mmdcn.data.checks import DataCheck, compare_classes, register_check
from mmdcn.errors import UserError


@register_check(BaseDataset)
class ClassCheck(DataCheck):
    """Labels of an annotation file must be within the class list, heads have as many classes."""

    def check(self, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check`."""
        classes = dataset.metainfo.get('classes')
        if classes and dataset.ann_file:
            _check_labels(dataset, len(classes), where)

    def check_model(self, model: nn.Module, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check_model`; looks at classifiers only."""
        model = model.module if is_model_wrapper(model) else model
        classes = dataset.metainfo.get('classes')
        if not classes or not isinstance(model, BaseClassifier):
            return
        for name, count in _class_counts(model):
            if count != len(classes):
                raise UserError(name, f'got {count}',
                                f'{len(classes)}, as many as {where} has classes',
                                'set it, or metainfo=dict(classes=...) of the data set, '
                                'whichever is wrong')


@register_check(CustomDataset)
class ClassFolderCheck(ClassCheck):
    """The names of class folders must be the class list, too, in their order."""

    def check(self, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check`."""
        classes = list(dataset.metainfo.get('classes') or [])
        folders = list(getattr(dataset, 'folder_to_idx', None) or ())
        # ImageNet's folders are WordNet codes while its classes are words: nothing to compare.
        if set(folders) & set(classes):
            compare_classes(classes, folders, where, 'the class folders')
        super().check(dataset, where)

    def explain(self, dataset_cfg: dict[str, Any], where: str, error: Exception) -> None:
        """Compare class folders with the class list, or find the line without a label."""
        if isinstance(error, ValueError) and dataset_cfg.get('with_label', True):
            _find_bad_line(dataset_cfg)
        if 'number of subfolders' not in str(error):
            return
        classes = (dataset_cfg.get('metainfo') or {}).get('classes')
        prefix = dataset_cfg.get('data_prefix') or ''
        prefix = next(iter(prefix.values()), '') if isinstance(prefix, dict) else prefix
        root = Path(dataset_cfg.get('data_root') or '.') / prefix
        root = root if root.is_dir() else root / str(dataset_cfg.get('split', ''))
        if classes and root.is_dir():
            folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
            compare_classes(list(classes), folders, where, f'the class folders in {root}')


def _class_counts(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Key paths and values of ``num_classes`` in the parts of a classifier that use it."""
    for name, part in model.named_modules():
        count = getattr(part, 'num_classes', None)
        place = name.split('.')[0]
        if not isinstance(count, int) or place == 'backbone':
            continue
        if place != 'data_preprocessor':
            yield '.'.join(filter(None, ('model', name, 'num_classes'))), count
        elif getattr(part, 'to_onehot', False):  # else it has no use
            yield f'{name}.num_classes', count


def _check_labels(dataset: Any, count: int, where: str) -> None:
    """Labels of an annotation file must be numbers of classes."""
    faults = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        label = info.get('gt_label', ())
        labels = label if isinstance(label, (list, tuple)) else [label]
        if not all(isinstance(number, Integral) and 0 <= number < count for number in labels):
            faults.append((info.get('img_path'), label))
    if faults:
        (path, label), others = faults[0], faults[1:]
        raise UserError(f'{dataset.ann_file}: the label of {path}', f'got label {label}',
                        f'0 to {count - 1}: a position in the {count} classes of {where}',
                        'labels count from 0; correct them, or set metainfo=dict(classes=...) of '
                        'the data set', f'  and {len(others)} more' if others else '')


def _find_bad_line(dataset_cfg: dict[str, Any]) -> None:
    """Raise for the first line of an annotation file that is no path and label."""
    path = Path(dataset_cfg.get('data_root') or '') / (dataset_cfg.get('ann_file') or '')
    if not path.is_file():
        return
    for number, line in enumerate(list_from_file(path), 1):
        parts = line.strip().rsplit(' ', 1)
        if len(parts) < 2 or not parts[1].lstrip('-').isdigit():
            raise UserError(f'{path}: line {number}', f'got {line!r}',
                            "'PATH LABEL', a picture and the number of its class from 0",
                            'correct the line, or remove it')
