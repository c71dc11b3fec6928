"""Lets mmdet3d 1.4.0 import beside newer mmcv and mmdet.

mmdet3d's ``__init__`` refuses mmcv >= 2.2 and mmdet >= 3.4 by version number alone; its code runs
with them. This is the one place that shows it the versions it wants, for the time of its import.
"""
from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

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

    Raises:
        ImportError: mmdet3d is not installed (``make env`` installs it).
    """
    if 'mmdet3d' in sys.modules:
        return
    with _accepted_versions():
        import mmdet3d  # noqa: F401
