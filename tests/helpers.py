"""Helpers that every test folder may use."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def reference_path(*parts: str) -> Path:
    """Path below the reference data (``MMDCN_REFERENCE``); skips the test where it is absent."""
    base = Path(os.environ.get('MMDCN_REFERENCE', ROOT.parent / 'shared' / 'reference'))
    path = base.joinpath(*parts)
    if not path.exists():
        pytest.skip(f'reference data {path.name!r} is absent; set MMDCN_REFERENCE to its folder')
    return path
