"""mmdet3d sees the versions it wants while it imports, and nobody sees them afterwards."""
from __future__ import annotations

import sys

import pytest
from PIL import Image

from mmdet3d_custom import _compat

mmcv = pytest.importorskip('mmcv')
mmdet = pytest.importorskip('mmdet')


def test_versions_are_shown_within_the_block_only():
    real = mmcv.__version__, mmdet.__version__
    with _compat._accepted_versions():
        assert (mmcv.__version__, mmdet.__version__) == ('2.1.0', '3.3.0')
    assert (mmcv.__version__, mmdet.__version__) == real


def test_versions_are_restored_after_a_failing_import(monkeypatch):
    real = mmcv.__version__, mmdet.__version__
    monkeypatch.setitem(sys.modules, 'mmdet3d', None)  # makes `import mmdet3d` fail
    with pytest.raises(ImportError), _compat._accepted_versions():
        import mmdet3d  # noqa: F401
    assert (mmcv.__version__, mmdet.__version__) == real


def test_mmdet3d_is_imported_once():
    pytest.importorskip('mmdet3d_custom')
    first = sys.modules['mmdet3d']
    _compat.import_mmdet3d()
    assert sys.modules['mmdet3d'] is first


def test_the_limit_of_pixels_stays():
    """Devkits lift it as they are imported."""
    pytest.importorskip('mmdet3d_custom')
    import mmdet3d.evaluation  # noqa: F401
    assert 'nuscenes.utils.map_mask' in sys.modules
    assert Image.MAX_IMAGE_PIXELS < 1e9
