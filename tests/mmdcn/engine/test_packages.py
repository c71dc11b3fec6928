"""Bases of the renamed distribution of mmseg resolve."""
from __future__ import annotations

import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from mmdcn.engine import packages

pytest.importorskip('mmseg')


def test_mmseg_bases_resolve(tmp_path, monkeypatch):
    path = tmp_path / 'a.py'
    path.write_text("_base_ = 'mmseg::_base_/models/upernet_r50.py'\n")
    assert Config.fromfile(str(path)).model.type == 'EncoderDecoder'
    assert packages.MODULE2PACKAGE is MODULE2PACKAGE
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'no-such-distribution')
    with pytest.raises(Exception, match='no-such-distribution'):
        Config.fromfile(str(path))
