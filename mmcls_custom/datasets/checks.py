"""What the annotations of classification data sets are checked for."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from mmpretrain.datasets import CustomDataset

from mmdcn.data.checks import DataCheck, compare_classes, register_check


@register_check(CustomDataset)
class ClassFolderCheck(DataCheck):
    """The class list must be the names of the class folders, in their order."""

    def check(self, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check`."""
        classes = list(dataset.metainfo.get('classes') or [])
        folders = list(getattr(dataset, 'folder_to_idx', None) or ())
        # ImageNet's folders are WordNet codes while its classes are words: nothing to compare.
        if set(folders) & set(classes):
            compare_classes(classes, folders, where, 'the class folders')

    def explain(self, dataset_cfg: dict[str, Any], where: str, error: Exception) -> None:
        """Compare class folders with the class list where the data set itself refused them."""
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
