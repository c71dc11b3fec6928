"""Fixtures for all tests."""
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers import reference_path

pytest_plugins = ['tests.systems', 'tests.nuscenes_sets']


@pytest.fixture(scope='session')
def reference_dir() -> Path:
    """Root of the reference data; tests that need it skip where it is absent."""
    return reference_path()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _scope_as_it_was() -> Iterator[None]:
    """OpenMMLab's register_all_modules leaves its scope as the default of all later tests."""
    def scopes() -> dict:
        module = sys.modules.get('mmengine.registry.default_scope')
        return {} if module is None else module.DefaultScope._instance_dict

    before = dict(scopes())
    yield
    after = scopes()
    if after != before:
        after.clear()
        after.update(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` skip, with the reason, where there is no GPU."""
    if torch.cuda.is_available():
        return
    for item in items:
        if 'gpu' in item.keywords:
            item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))
