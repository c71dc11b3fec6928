"""Lets mmdet3d 1.4.0 import beside newer mmcv and mmdet.

mmdet3d's ``__init__`` refuses mmcv >= 2.2 and mmdet >= 3.4 by version number alone; its code runs
with them. This is the one place that shows it the versions it wants, for the time of its import.
"""
from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_ACCEPTED = {'mmcv': '2.1.0', 'mmdet': '3.3.0'}


@contextmanager
def _accepted_versions() -> Iterator[None]:
    import mmcv
    import mmdet
    modules = {'mmcv': mmcv, 'mmdet': mmdet}
    real = {name: module.__version__ for name, module in modules.items()}
    try:
        for name, module in modules.items():
            module.__version__ = _ACCEPTED[name]
        yield
    finally:
        for name, module in modules.items():
            module.__version__ = real[name]


def import_mmdet3d() -> None:
    """Import mmdet3d once; later ``import mmdet3d`` statements anywhere then succeed.

    PIL's limit of pixels stays as it is; the devkits that mmdet3d's data sets and metrics import
    would lift it.

    Raises:
        ImportError: mmdet3d is not installed (``make env`` installs it).
    """
    if 'mmdet3d' in sys.modules:
        return
    from PIL import Image
    limit = Image.MAX_IMAGE_PIXELS
    try:
        with _accepted_versions():
            import mmdet3d  # noqa: F401
        for devkit in ('nuscenes', 'lyft_dataset_sdk'):
            with suppress(ImportError):
                importlib.import_module(f'{devkit}.utils.map_mask')
    finally:
        Image.MAX_IMAGE_PIXELS = limit
